//! The engine against the double of an API server: what it reads, writes, refuses, and how it comes back.

mod faults;
mod lab;
mod leading;
mod others;
mod reads;
mod real;
mod writes;
