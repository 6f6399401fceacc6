/*
 * A snapshot in one file, for carrying it elsewhere: a stream (state/stream.h) with everything it stands on.
 *
 *   "snapshot"  the manifest; first
 *   "state", "kernel"  these files as they are
 *   "pages"     16 neighbour pages of memory: u64 number of the first / 16, u32 bits of those that are there, u32 0; then
 *               these, one behind the other
 *   "disk"      (instance: which) a piece of its content: u64 offset, u32 bytes, u32 0; then the bytes; what is in no piece is zero
 *
 * Of the last two, version 1 has the bytes as they are, version 2 packed with zstd. Every section has a checksum.
 */
#ifndef CMD_SNAPSHOT_FILE_H
#define CMD_SNAPSHOT_FILE_H

#include "cmd/snapshot.h"

#define SNAPFILE_HEAD 16 /* bytes in front of pages and pieces */
#define SNAPFILE_PIECE (1 * MiB)
#define SNAPFILE_PLAIN 1
#define SNAPFILE_PACKED 2

#endif
