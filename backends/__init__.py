"""Ways out: what turns a module into something that runs."""
