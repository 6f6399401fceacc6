/* How much of an image a program claims (fcntl(2), F_OFD_SETLK): readers share, a writer is alone. */
#ifndef BLOCK_LOCK_H
#define BLOCK_LOCK_H

enum block_lock { BLOCK_UNLOCKED, BLOCK_SHARED, BLOCK_EXCLUSIVE };

#endif
