// How the C library treats memory that was freed.
//
// A step frees and takes the same large blocks over and over (messages, packed operands, arrays of
// latents). By default blocks from 128 KiB on go back to the system each time, and every page of the
// next one is cleared and mapped anew.
//
// Threads, by default, have heaps of their own, and what one has freed serves no other: microbatches in flight
// (a thread each, one at a time runs) took 65 MiB more for that.

import CKernels

package enum FreedMemory {
  /// Keeps freed blocks of up to 32 MiB, and in all up to 256 MiB, in the program. To be called
  /// before threads start, which then share one heap; without effect where the C library has no such setting.
  package static func keep() { w2svd_keep_freed_memory() }
}
