//! Every call into libc, behind safe functions: the only unsafe code.
