//! The command line side of the admin socket.
