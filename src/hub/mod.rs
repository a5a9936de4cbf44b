//! Who hears what. Pure.
