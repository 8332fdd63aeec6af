/* Calls the library of attention.ein:
 *
 *     einloom compile examples/attention.ein --emit so -o libattention.so
 *     cc -std=c99 -I. examples/attention.c -L. -lattention -Wl,-rpath,. -o attention
 *     ./attention
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "attention.h"

enum { H = 8, P = 256, M = 1024, E = 64, F = 64 };

/* Numbers from -1 to 1, the same on every machine. */
static float *numbers(size_t count, uint32_t seed)
{
    float *made = malloc(count * sizeof *made);
    if (made == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        made[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
    return made;
}

int main(void)
{
    float *q = numbers((size_t)H * P * E, 1);
    float *k = numbers((size_t)H * M * E, 2);
    float *v = numbers((size_t)H * M * F, 3);
    float *av = numbers((size_t)H * P * F, 4);

    /* What is left out is zero: no strides (C order), no fault, one thread. */
    struct attention_arguments arguments = {
        .Q = {.data = q, .extents = {H, P, E}},
        .K = {.data = k, .extents = {H, M, E}},
        .V = {.data = v, .extents = {H, M, F}},
        .AV = {.data = av, .extents = {H, P, F}},
        .threads = 2,
    };
    int32_t code = attention(&arguments);
    if (code != ATTENTION_OK) {
        fprintf(stderr, "attention: %s\n", attention_message(code));
        return 1;
    }
    for (size_t i = 0; i < (size_t)H * P * F; i += 16411)
        printf("%zu %.9g\n", i, (double)av[i]);

    /* A mistake is a code with a text, not a crash. */
    arguments.K.extents[2] = 63;
    code = attention(&arguments);
    printf("%" PRId32 " %s\n", code, attention_message(code));

    free(q);
    free(k);
    free(v);
    free(av);
    return 0;
}
