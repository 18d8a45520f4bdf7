/* ubccl.h - the C interface of ubccl. Generated from ffi/src by cbindgen; do not edit. */

#ifndef UBCCL_H
#define UBCCL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/*
 8-bit signed integer.
 */
#define UBCCL_I8 0

/*
 Unsigned byte.
 */
#define UBCCL_U8 1

/*
 32-bit signed integer.
 */
#define UBCCL_I32 2

/*
 32-bit unsigned integer.
 */
#define UBCCL_U32 3

/*
 64-bit signed integer.
 */
#define UBCCL_I64 4

/*
 64-bit unsigned integer.
 */
#define UBCCL_U64 5

/*
 IEEE 16-bit float.
 */
#define UBCCL_F16 6

/*
 32-bit float.
 */
#define UBCCL_F32 7

/*
 64-bit float.
 */
#define UBCCL_F64 8

/*
 16-bit brain float.
 */
#define UBCCL_BF16 9

/*
 8-bit float with 4 bits of exponent and no infinity: what is too large becomes NaN.
 */
#define UBCCL_F8E4M3 10

/*
 8-bit float with 5 bits of exponent.
 */
#define UBCCL_F8E5M2 11

/*
 16-bit signed integer.
 */
#define UBCCL_I16 64

/*
 16-bit unsigned integer.
 */
#define UBCCL_U16 65

/*
 Sum. Integers wrap; floats smaller than 32 bits are summed in 32 and rounded once.
 */
#define UBCCL_SUM 0

/*
 Product, under the same rules.
 */
#define UBCCL_PROD 1

/*
 Maximum. A NaN in any input gives NaN; +0 is greater than -0.
 */
#define UBCCL_MAX 2

/*
 Minimum, under the same rules.
 */
#define UBCCL_MIN 3

/*
 Average: the wide sum divided once; for integers without wrapping, and truncated towards zero.
 */
#define UBCCL_AVG 4

/*
 Bitwise and; integers only.
 */
#define UBCCL_AND 64

/*
 Bitwise or; integers only.
 */
#define UBCCL_OR 65

/*
 Bitwise exclusive or; integers only.
 */
#define UBCCL_XOR 66

/*
 Bytes that a rendezvous text and its end need at most.
 */
#define UBCCL_RENDEZVOUS_TEXT_MAX 128

/*
 A communicator. One thread at a time.
 */
typedef struct ubccl_comm ubccl_comm;

/*
 Where ranks meet: rank 0's listener and the text that the others need.
 */
typedef struct ubccl_rendezvous ubccl_rendezvous;

/*
 Result of a call: `UBCCL_SUCCESS` or the kind of error. Numbers are never used again.
 */
typedef int32_t ubccl_result;

/*
 How a communicator is made. Fill it with `ubccl_config_init`, then change what you need.
 */
typedef struct ubccl_config {
  /*
   Bytes of this structure as the caller knows it; set by `ubccl_config_init`.
   */
  size_t size;
  /*
   Where the ranks meet, as text; null: from `UBCCL_RENDEZVOUS`, or `listener`.
   */
  const char *rendezvous;
  /*
   Rank 0 only: the rendezvous that it made. It is used up by a successful `ubccl_comm_init`, and by a failed one
   unless `size` is wrong.
   */
  struct ubccl_rendezvous *listener;
  /*
   This rank.
   */
  uint32_t rank;
  /*
   How many ranks.
   */
  uint32_t ranks;
  /*
   The transport's name; null: `UBCCL_TRANSPORT` or the default.
   */
  const char *transport;
  /*
   An algorithm for every call; null: `UBCCL_ALGO` or chosen by size.
   */
  const char *algorithm;
  /*
   Seconds that one operation may take; 0: `UBCCL_TIMEOUT` or the default.
   */
  uint32_t operation_timeout_s;
} ubccl_config;

/*
 It worked.
 */
#define UBCCL_SUCCESS 0

/*
 The arguments are wrong. Nothing was sent.
 */
#define UBCCL_INVALID_ARGUMENT 1

/*
 Valid, but not available here. Nothing was sent.
 */
#define UBCCL_UNSUPPORTED 2

/*
 Starting failed.
 */
#define UBCCL_START_FAILED 3

/*
 The operating system refused something.
 */
#define UBCCL_SYSTEM_ERROR 4

/*
 Ranks disagree about an operation; the communicator is poisoned.
 */
#define UBCCL_MISMATCH 5

/*
 A deadline passed.
 */
#define UBCCL_TIMEOUT 6

/*
 Another rank died, left or failed; the communicator is poisoned.
 */
#define UBCCL_REMOTE_ERROR 7

/*
 Abort was called here or on another rank; the communicator is poisoned.
 */
#define UBCCL_ABORTED 8

/*
 The communicator was closed.
 */
#define UBCCL_CLOSED 9

/*
 A defect in ubccl.
 */
#define UBCCL_INTERNAL_ERROR 10

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The version as 10,000 × major + 100 × minor + patch.
 */
uint32_t ubccl_version(void);

/*
 What a result code means, in a few words. Never null; the text lives for ever.
 */
const char *ubccl_result_string(ubccl_result result);

/*
 The whole message of the last call of this thread that failed. Never null; valid until this thread's next call.
 */
const char *ubccl_last_error(void);

/*
 Makes a rendezvous: rank 0 does, gives its text to the other ranks, and itself to `ubccl_comm_init`.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_rendezvous_create(struct ubccl_rendezvous **out);

/*
 Writes the rendezvous' text, zero-terminated, into `text` (`len` bytes, `UBCCL_RENDEZVOUS_TEXT_MAX` suffices).

 # Safety
 `rendezvous` is null or alive; `text` is null or has `len` bytes.
 */
ubccl_result ubccl_rendezvous_text(const struct ubccl_rendezvous *rendezvous,
                                   char *text,
                                   size_t len);

/*
 Frees a rendezvous that no `ubccl_comm_init` used up. Null is fine.

 # Safety
 `rendezvous` is null or alive, and is not used again.
 */
void ubccl_rendezvous_destroy(struct ubccl_rendezvous *rendezvous);

/*
 Fills a configuration with the defaults.

 # Safety
 `config` is null or may be written.
 */
ubccl_result ubccl_config_init(struct ubccl_config *config);

/*
 Joins a communicator; returns when all ranks have.

 # Safety
 `config` is null or valid, its texts are null or zero-terminated, its listener null or alive and then not used
 again; `out` is null or may be written.
 */
ubccl_result ubccl_comm_init(const struct ubccl_config *config,
                             struct ubccl_comm **out);

/*
 This rank and the number of ranks; either may be null.

 # Safety
 `comm` is null or alive; `rank` and `ranks` are null or may be written.
 */
ubccl_result ubccl_comm_rank(const struct ubccl_comm *comm, uint32_t *rank, uint32_t *ranks);

/*
 All-reduces `count` elements of `send` into `recv` on every rank; in place if both are the same. Blocks.
 `dtype` and `op` are `UBCCL_F32` … and `UBCCL_SUM` ….

 # Safety
 `comm` is null or alive; `send` may be read and `recv` written for `count` elements, and both are left alone
 until it returns; they are equal or apart.
 */
ubccl_result ubccl_comm_all_reduce(const struct ubccl_comm *comm,
                                   const void *send,
                                   void *recv,
                                   size_t count,
                                   int32_t dtype,
                                   int32_t op);

/*
 Ends the communicator on every rank: whatever is under way or called later fails.

 # Safety
 `comm` is null or alive.
 */
ubccl_result ubccl_comm_abort(const struct ubccl_comm *comm);

/*
 Leaves in good order and frees the communicator, whatever the result says. Null is refused.

 # Safety
 `comm` is null or alive, and is not used again.
 */
ubccl_result ubccl_comm_destroy(struct ubccl_comm *comm);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* UBCCL_H */
