/* Whether KVM really runs guests here. Opening /dev/kvm proves nothing: some virtual machines offer
 * a KVM that only interprets, and guests hang or die on it. */
#pragma once

/* 1 = a test guest ran at hardware speed, 0 = not (no device, no right, or interpreted). Never
 * fails.
 *
 * A child process runs a real-mode loop of 4 million rounds in a KVM guest of 64 KiB and must be
 * through in 500 ms; the caller's signals, timers and descriptors are not touched. Takes
 * milliseconds on hardware, at most 2 s. Threads: any. Not cached.
 */
int kvm_usable(void);
