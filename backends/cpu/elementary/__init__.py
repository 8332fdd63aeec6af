"""Elementary functions as straight-line LLVM code, so that loops over them vectorise."""
