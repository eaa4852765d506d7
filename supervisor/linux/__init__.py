"""One file per kernel facility, one function per system call. Standard library only.

The launcher imports these between fork and exec, so importing does nothing but define names.
Functions keep the kernel's names and raise `OSError` with the errno and, where there is one, the path.
"""
