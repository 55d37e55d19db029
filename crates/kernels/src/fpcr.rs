//! Floating-point control: nearest-even rounding, subnormals kept, no traps.
//!
//! In:     whatever a linked library left in this thread's control register.
//! Out:    the register as the arithmetic needs it.
//! Touches: MXCSR on x86-64, FPCR on AArch64; nothing elsewhere, where Rust's default is the only state.
//! Holds:  every thread that computes calls `set` first: the pool's at their start, callers at each operation.

#![allow(unsafe_code)]

/// Sets this thread's floating-point control to the arithmetic's state. Cheap when it already is.
pub fn set() {
    if !is_set() {
        write(DEFAULT);
        assert!(is_set(), "floating-point control did not take the arithmetic's state");
    }
}

/// Whether this thread rounds to nearest even, keeps subnormals and traps nothing.
pub fn is_set() -> bool {
    read() & CONTROL == DEFAULT
}

#[cfg(target_arch = "x86_64")]
mod register {
    /// All exceptions masked, round to nearest, neither flush-to-zero nor denormals-are-zero.
    pub(super) const DEFAULT: u64 = 0x1f80;
    /// Everything but the six sticky exception flags.
    pub(super) const CONTROL: u64 = 0xffc0;

    pub(super) fn read() -> u64 {
        let mut value = 0u32;
        // SAFETY: stmxcsr writes four bytes to a live local.
        unsafe {
            std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags));
        }
        u64::from(value)
    }

    pub(super) fn write(value: u64) {
        let value = value as u32;
        // SAFETY: the value is the state Rust itself assumes; ldmxcsr reads four bytes from a live local.
        unsafe {
            std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, readonly, preserves_flags));
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod register {
    /// Round to nearest, no flush-to-zero, no default-NaN mode, no traps.
    pub(super) const DEFAULT: u64 = 0;
    /// FZ16, RMode, FZ, DN, AHP, the trap enables, and FIZ, AH, NEP of newer cores.
    pub(super) const CONTROL: u64 = 0x07ff_9f07;

    pub(super) fn read() -> u64 {
        let value: u64;
        // SAFETY: reading FPCR has no effect.
        unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    pub(super) fn write(value: u64) {
        // SAFETY: the value is the state Rust itself assumes.
        unsafe { std::arch::asm!("msr fpcr, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod register {
    pub(super) const DEFAULT: u64 = 0;
    pub(super) const CONTROL: u64 = 0;

    pub(super) fn read() -> u64 {
        0
    }

    pub(super) fn write(_value: u64) {}
}

use register::{CONTROL, DEFAULT, read, write};

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn flush_to_zero_is_seen_and_undone() {
        const FLUSH_TO_ZERO: u64 = 0x8000;
        set();
        write(DEFAULT | FLUSH_TO_ZERO);
        let seen = is_set();
        set();
        assert!(!seen);
        assert!(is_set());
    }
}
