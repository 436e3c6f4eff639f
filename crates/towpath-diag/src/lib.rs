//! What the Linux kernel knows of TCP sockets.
