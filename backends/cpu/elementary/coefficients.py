"""Coefficients of the elementary functions. Made by docs/derive_polynomials.py.

Each tuple holds the lowest power first. The comment says what the polynomial is close
to, on which interval, and its largest error as the function's result sees it.
"""

from __future__ import annotations

LN2_HIGH_SINGLE = float.fromhex("0x1.62e4000000000p-1")  # ln 2 to 16 bits behind the point
LN2_LOW_SINGLE = float.fromhex("0x1.7f7d1cf79abcap-20")  # the rest of ln 2
LN2_HIGH_DOUBLE = float.fromhex("0x1.62e42ff000000p-1")  # ln 2 to 33 bits behind the point
LN2_LOW_DOUBLE = float.fromhex("-0x1.718432a1b0e26p-35")  # the rest of ln 2
# the first 256 bits of 1 / (2 pi)
TURN = 0x28BE60DB9391054A7F09D5F47D4D377036D8A5664F10E4107F9458EAF7AEF158

# (exp(r) - 1 - r) / r^2, from -0.346574 to 0.346574: 2^-28.3
EXP_SINGLE = (
    float.fromhex("0x1.00000054169f0p-1"),
    float.fromhex("0x1.55548efd398dap-3"),
    float.fromhex("0x1.55545a766a7fcp-5"),
    float.fromhex("0x1.123b48ca882e9p-7"),
    float.fromhex("0x1.6db67b79705b6p-10"),
)

# (exp(r) - 1 - r) / r^2, from -0.346574 to 0.346574: 2^-58.0
EXP_DOUBLE = (
    float.fromhex("0x1.000000000000bp-1"),
    float.fromhex("0x1.5555555555561p-3"),
    float.fromhex("0x1.555555555002bp-5"),
    float.fromhex("0x1.111111110d5edp-7"),
    float.fromhex("0x1.6c16c185a834fp-10"),
    float.fromhex("0x1.a01a01bb0ac14p-13"),
    float.fromhex("0x1.a019969206d22p-16"),
    float.fromhex("0x1.71dddf6416179p-19"),
    float.fromhex("0x1.28b04a035951ap-22"),
    float.fromhex("0x1.af863321aa1d9p-26"),
)

# (2^r - 1) / r, from -0.5 to 0.5: 2^-29.0
EXP2_SINGLE = (
    float.fromhex("0x1.62e430cc41e57p-1"),
    float.fromhex("0x1.ebfbe0d8b84b4p-3"),
    float.fromhex("0x1.c6aecf7071c3cp-5"),
    float.fromhex("0x1.3b29a95bd588ap-7"),
    float.fromhex("0x1.5f47b0ab2f19dp-10"),
    float.fromhex("0x1.44902c845da99p-13"),
)

# (2^r - 1) / r, from -0.5 to 0.5: 2^-34.3
EXP2_WIDE = (
    float.fromhex("0x1.62e42fef7cedep-1"),
    float.fromhex("0x1.ebfbe07ac4991p-3"),
    float.fromhex("0x1.c6b08df18bdd9p-5"),
    float.fromhex("0x1.3b29f0ec12c7ep-7"),
    float.fromhex("0x1.5d8725cbce99cp-10"),
    float.fromhex("0x1.445e7ab45049ep-13"),
    float.fromhex("0x1.00f04820065a0p-16"),
)

# (log(1 + f) - f + f^2 / 2) / f^3, from -0.292893 to 0.414214: 2^-30.3
LOG_SINGLE = (
    float.fromhex("0x1.5555476acdd08p-2"),
    float.fromhex("-0x1.0000065688a21p-2"),
    float.fromhex("0x1.99a4b5f915b03p-3"),
    float.fromhex("-0x1.555c5acb1c90fp-3"),
    float.fromhex("0x1.23375fdea6c51p-3"),
    float.fromhex("-0x1.fc202574301bdp-4"),
    float.fromhex("0x1.e6ef37d38c95bp-4"),
    float.fromhex("-0x1.de467c28a1e06p-4"),
    float.fromhex("0x1.1466366914cd9p-4"),
)

# log(1 + f) / f, from -0.292893 to 0.414214: 2^-33.2
LOG_WIDE = (
    float.fromhex("0x1.0000000026b2cp+0"),
    float.fromhex("-0x1.0000001c83328p-1"),
    float.fromhex("0x1.5555541b2ce02p-2"),
    float.fromhex("-0x1.ffffa674edacfp-3"),
    float.fromhex("0x1.999a3273f0ce6p-3"),
    float.fromhex("-0x1.55695c8322a1dp-3"),
    float.fromhex("0x1.2491266534964p-3"),
    float.fromhex("-0x1.fc553aa2afe81p-4"),
    float.fromhex("0x1.c36cbf4a7dad7p-4"),
    float.fromhex("-0x1.bdb8468288908p-4"),
    float.fromhex("0x1.b7aefe2733353p-4"),
    float.fromhex("-0x1.ea41286f1da08p-5"),
)

# log(1 + f) / f, from -0.292893 to 0.414214: 2^-41.1
LOG_POWER = (
    float.fromhex("0x1.00000000004c1p+0"),
    float.fromhex("-0x1.ffffffffc49b9p-2"),
    float.fromhex("0x1.55555550d7cb9p-2"),
    float.fromhex("-0x1.000000438fcddp-2"),
    float.fromhex("0x1.99999f69d67b6p-3"),
    float.fromhex("-0x1.55552bd72314dp-3"),
    float.fromhex("0x1.2490d2ad39d0fp-3"),
    float.fromhex("-0x1.0004e9b6d755cp-3"),
    float.fromhex("0x1.c777df63427bap-4"),
    float.fromhex("-0x1.993179952807fp-4"),
    float.fromhex("0x1.6ea821c79972cp-4"),
    float.fromhex("-0x1.53a1aaba0b04fp-4"),
    float.fromhex("0x1.6614f585632dbp-4"),
    float.fromhex("-0x1.5eb1ee52d5034p-4"),
    float.fromhex("0x1.66c4134d21b24p-5"),
)

# (log((1 + s) / (1 - s)) / s - 2) / z, z = s^2, from 0 to 0.0294373: 2^-58.5
LOG_DOUBLE = (
    float.fromhex("0x1.5555555555592p-1"),
    float.fromhex("0x1.999999997fd20p-2"),
    float.fromhex("0x1.24924941f96b8p-2"),
    float.fromhex("0x1.c71c5202bc257p-3"),
    float.fromhex("0x1.7466403df22eap-3"),
    float.fromhex("0x1.39a1990e4877cp-3"),
    float.fromhex("0x1.2f06aea975872p-3"),
)

# erf(x) / x - 1 in x^2, from 0 to 1: 2^-29.6
ERF_NEAR_SINGLE = (
    float.fromhex("0x1.06eba7f25e8b3p-3"),
    float.fromhex("-0x1.81273dec3ff80p-2"),
    float.fromhex("0x1.ce2cf7af5b9b5p-4"),
    float.fromhex("-0x1.b7f913071bd2dp-6"),
    float.fromhex("0x1.5405d88f66179p-8"),
    float.fromhex("-0x1.a3f7f055aa304p-11"),
    float.fromhex("0x1.496c74072c32bp-14"),
)

# log(1 - erf(1 + u)), from 0 to 3: 2^-35.5
ERF_FAR_SINGLE = (
    float.fromhex("-0x1.d97fbf2823a65p+0"),
    float.fromhex("-0x1.51c9b00436092p+1"),
    float.fromhex("-0x1.afabbab69c5a8p-1"),
    float.fromhex("-0x1.547d11c0d0d17p-5"),
    float.fromhex("0x1.4934bbad404b2p-7"),
    float.fromhex("-0x1.07ba0606a516dp-9"),
    float.fromhex("0x1.2fa4754d877dep-12"),
    float.fromhex("-0x1.6bfabe8daa45ap-16"),
)

# erf(x) / x - 1 in x^2, from 0 to 1: 2^-62.7
ERF_NEAR_DOUBLE = (
    float.fromhex("0x1.06eba8214db69p-3"),
    float.fromhex("-0x1.812746b0379e6p-2"),
    float.fromhex("0x1.ce2f21a042b21p-4"),
    float.fromhex("-0x1.b82ce312849abp-6"),
    float.fromhex("0x1.565bcd0db052fp-8"),
    float.fromhex("-0x1.c02db3d8f3cd2p-11"),
    float.fromhex("0x1.f9a321a1e15ecp-14"),
    float.fromhex("-0x1.f4d1df480473dp-17"),
    float.fromhex("0x1.b9def25aaa994p-20"),
    float.fromhex("-0x1.5f1d3cfb18a88p-23"),
    float.fromhex("0x1.f7a4549886b36p-27"),
    float.fromhex("-0x1.386b8bdb0128bp-30"),
    float.fromhex("0x1.057bc8c90f1ebp-34"),
)

# log(1 - erf(1 + u)), from 0 to 5: 2^-59.5
ERF_FAR_DOUBLE = (
    float.fromhex("-0x1.d97fbf27aa2a1p+0"),
    float.fromhex("-0x1.51c9b0006c237p+1"),
    float.fromhex("-0x1.afabc11a29559p-1"),
    float.fromhex("-0x1.5477f09c10298p-5"),
    float.fromhex("0x1.48c9d3ed462ebp-7"),
    float.fromhex("-0x1.033f65e7a0d52p-9"),
    float.fromhex("0x1.f1b397fdeb139p-13"),
    float.fromhex("0x1.b8dd518aad997p-16"),
    float.fromhex("-0x1.c7a4deaf734c5p-16"),
    float.fromhex("0x1.426410408f3b5p-17"),
    float.fromhex("-0x1.14535b7f697b4p-19"),
    float.fromhex("0x1.311a1f8ad8c91p-23"),
    float.fromhex("0x1.a50c55e8f340fp-24"),
    float.fromhex("-0x1.c0dfc1ffc2acfp-25"),
    float.fromhex("0x1.0166b0f94659cp-26"),
    float.fromhex("-0x1.8be4b18cbdf55p-29"),
    float.fromhex("0x1.97afb5dfe7d27p-32"),
    float.fromhex("-0x1.ff0e249e7ab94p-36"),
    float.fromhex("0x1.273bf680a07ddp-40"),
)

# (tanh(x) / x - 1) / z, z = x^2, from 0 to 0.3025: 2^-29.8
TANH_SINGLE = (
    float.fromhex("-0x1.55554abd01ad9p-2"),
    float.fromhex("0x1.110d259c8cb97p-3"),
    float.fromhex("-0x1.b92860991a819p-5"),
    float.fromhex("0x1.593c23398c4c9p-6"),
    float.fromhex("-0x1.9b2b0a64ec43ap-8"),
)

# (tanh(x) / x - 1) / z, z = x^2, from 0 to 0.3025: 2^-60.6
TANH_DOUBLE = (
    float.fromhex("-0x1.555555555554fp-2"),
    float.fromhex("0x1.111111111079cp-3"),
    float.fromhex("-0x1.ba1ba1b97d5cdp-5"),
    float.fromhex("0x1.664f4859664bap-6"),
    float.fromhex("-0x1.226e2f1320ba0p-7"),
    float.fromhex("0x1.d6d29b600e06ep-9"),
    float.fromhex("-0x1.7d8fd0efa290ep-10"),
    float.fromhex("0x1.3483984789ecfp-11"),
    float.fromhex("-0x1.e96ee69451cd2p-13"),
    float.fromhex("0x1.5d71e517cb822p-14"),
    float.fromhex("-0x1.470b153908004p-16"),
)

# (sin(x) / x - 1) / z, z = x^2, from 0 to 1: 2^-34.1
SIN_WIDE = (
    float.fromhex("-0x1.5555551a52182p-3"),
    float.fromhex("0x1.1110ed2d0ce01p-7"),
    float.fromhex("-0x1.9ffed9a6fdcb8p-13"),
    float.fromhex("0x1.69c209eddbd6dp-19"),
)

# (cos(x) - 1 + z / 2) / z^2, z = x^2, from 0 to 1: 2^-29.8
COS_WIDE = (
    float.fromhex("0x1.55552856be6d7p-5"),
    float.fromhex("-0x1.6bfc149370e65p-10"),
    float.fromhex("0x1.9644a134d5d5dp-16"),
)

# (sin(x) / x - 1) / z, z = x^2, from 0 to 0.61685: 2^-58.0
SIN_DOUBLE = (
    float.fromhex("-0x1.5555555555549p-3"),
    float.fromhex("0x1.111111110f87bp-7"),
    float.fromhex("-0x1.a01a019c11aaap-13"),
    float.fromhex("0x1.71de3577cd5a3p-19"),
    float.fromhex("-0x1.ae5e66535dab2p-26"),
    float.fromhex("0x1.5d930a624b1fdp-33"),
)

# (cos(x) - 1 + z / 2) / z^2, z = x^2, from 0 to 0.61685: 2^-64.2
COS_DOUBLE = (
    float.fromhex("0x1.555555555554cp-5"),
    float.fromhex("-0x1.6c16c16c15187p-10"),
    float.fromhex("0x1.a01a019cb2b4ep-16"),
    float.fromhex("-0x1.27e4f80aa50eap-22"),
    float.fromhex("0x1.1ee9ec626550cp-29"),
    float.fromhex("-0x1.8faed9e431e77p-37"),
)

# (atan(x) / x - 1) / z, z = x^2, from 0 to 1: 2^-34.0
ATAN_WIDE = (
    float.fromhex("-0x1.555554992ea52p-2"),
    float.fromhex("0x1.99993eb46d731p-3"),
    float.fromhex("-0x1.248a9df9ff36ep-3"),
    float.fromhex("0x1.c675a82a0447cp-4"),
    float.fromhex("-0x1.702e4dfe94897p-4"),
    float.fromhex("0x1.29c0a99c62274p-4"),
    float.fromhex("-0x1.c021530ab07f2p-5"),
    float.fromhex("0x1.1c493ef5c2558p-5"),
    float.fromhex("-0x1.0dd7a940abd25p-6"),
    float.fromhex("0x1.4795e67dbd966p-8"),
    float.fromhex("-0x1.74d9637917e6cp-11"),
)
