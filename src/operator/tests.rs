//! Tests of the dispatcher and the reconciles together.

mod invalid_objects;
