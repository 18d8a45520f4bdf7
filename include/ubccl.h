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
 The source of a receive that takes the first message with its tag, whoever sends it.
 */
#define UBCCL_ANY_SOURCE 4294967295

/*
 The colour of a rank that takes part in `ubccl_comm_split` and gets no communicator.
 */
#define UBCCL_NO_COLOUR -1

/*
 Bytes that a rendezvous text and its end need at most.
 */
#define UBCCL_RENDEZVOUS_TEXT_MAX 128

/*
 A communicator: this rank's membership in a group of ranks that make the same calls in the same order.

 Threads: any thread may call. Calls of several threads take turns, and then their order is the program's to keep
 equal on all ranks. While a call is under way `ubccl_comm_abort` and the queries may be called from other threads;
 `ubccl_comm_close` and `ubccl_comm_destroy` are refused with `UBCCL_INVALID_ARGUMENT` and change nothing.

 Handles: a handle that was destroyed, is null, or never was one gives `UBCCL_INVALID_ARGUMENT`, for ever. After
 `fork` it belongs to the parent; the child gets `UBCCL_INVALID_ARGUMENT`.

 Errors: `UBCCL_INVALID_ARGUMENT` and `UBCCL_UNSUPPORTED` sent nothing and change nothing. `UBCCL_MISMATCH`,
 `UBCCL_TIMEOUT`, `UBCCL_REMOTE_ERROR` and `UBCCL_ABORTED` poison the communicator: every rank gets the same cause
 from whatever is under way or called later. No buffer is touched after a blocking call has returned, whatever it
 returned.
 */
typedef struct ubccl_comm ubccl_comm;

/*
 Calls of one communicator that are collected, by the functions that begin with `ubccl_group_`, and run at once by
 `ubccl_group_run` or `ubccl_group_issue`, which use it up.

 All messages of a group are concurrent: none waits for another, so that ranks may exchange in any pattern without
 thinking of an order. Those of a pair keep their order, within a group, between groups and with `ubccl_comm_send` and
 `ubccl_comm_receive`. A message of a rank to itself is copied: the k-th to the k-th, both in the same group.
 Collectives of a group keep their order, the same on every rank. Buffers that are received into lie apart.

 Buffers belong to the group from the call that adds them until it has run, its work is over, or it is destroyed;
 tables of counts and displacements are copied. A call that is refused is not in the group.

 Threads: one thread at a time with one group; a second one is refused with `UBCCL_INVALID_ARGUMENT`.

 Source: ncclGroupStart and ncclGroupEnd, but explicit: calls outside the group are not in it.
 */
typedef struct ubccl_group ubccl_group;

/*
 A call with its buffers, made by a function whose name ends in `_prepare`, to be started again and again. Starting
 looks nothing up: that was done when it was prepared. Tables of counts and displacements are copied then.

 Order: preparing is this rank's own affair; every start counts as the call, and other ranks may make it as an
 ordinary one.

 Buffers: as for a `ubccl_work`, from every start until the operation is over; between starts they are the caller's
 to read and write. `ubccl_prepared_start` is as safe as the call itself: the buffers must be there.

 Threads: one thread at a time with one of them; a second one is refused with `UBCCL_INVALID_ARGUMENT`. It is freed
 with `ubccl_prepared_free`, before or after its communicator.

 Source: MPI_Allreduce_init, MPI_Send_init.
 */
typedef struct ubccl_prepared ubccl_prepared;

/*
 Where ranks meet: rank 0's listener and the text that the others need.
 */
typedef struct ubccl_rendezvous ubccl_rendezvous;

/*
 An operation that was issued by a function whose name ends in `_async`.

 Buffers: what is sent is left alone, and what is received neither read nor written, until `ubccl_work_test` or
 `ubccl_work_wait_timeout` has said that it is done, `ubccl_work_wait` or `ubccl_work_free` has returned (whatever
 they return), or one of them has returned the error that ended the operation. Tables of counts and displacements
 are copied when it is issued.

 Order: operations of one communicator start in the order issued, blocking ones included, the same on every rank;
 point-to-point ones run beside them. They go on by themselves; waiting for them is faster.

 Threads: one thread at a time with one work; a second one is refused with `UBCCL_INVALID_ARGUMENT`. The work is
 freed with `ubccl_work_free`, before or after its communicator.
 */
typedef struct ubccl_work ubccl_work;

/*
 Result of a call: `UBCCL_SUCCESS` or the kind of error. Numbers are never used again.
 */
typedef int32_t ubccl_result;

/*
 What an error is about. Set `size` to `sizeof(struct ubccl_error_info)` before asking; a later version may know more
 fields, and writes no more than `size` bytes. The texts are never null and live until this thread's next call that
 fails.
 */
typedef struct ubccl_error_info {
  /*
   Bytes of this structure as the caller knows it.
   */
  size_t size;
  /*
   The result code, `UBCCL_SUCCESS` if no call of this thread has failed.
   */
  ubccl_result result;
  /*
   Whether it is the cause that ended a communicator; only then the fields after `message` say something.
   */
  bool has_cause;
  /*
   The whole text, that of `ubccl_last_error`.
   */
  const char *text;
  /*
   What happened, in one sentence without who and where; the whole text if there is no cause.
   */
  const char *message;
  /*
   The rank that is the cause.
   */
  uint32_t rank;
  /*
   Its process, 0 if unknown.
   */
  uint32_t pid;
  /*
   Its host, empty if unknown.
   */
  const char *host;
  /*
   What it was doing, as `all_reduce count=4 f32 sum`; empty if it was in no operation.
   */
  const char *operation;
  /*
   The number of its collective, counted from 1; 0 before the first.
   */
  uint64_t sequence;
} ubccl_error_info;

/*
 Combines elements: for every k < `count`, `inout[k]` becomes `inout[k] op in[k]` (MPI's functions have the two the
 other way round, which matters only to operations that don't commute). Both hold `count` ≥ 1 whole elements of
 `dtype`, aligned for it, and do not overlap; it is seldom all of a message.

 It may be called on any thread, also on one of the library's own, and on several at once. It must not call into a
 communicator, throw, or leave by longjmp.
 */
typedef void (*ubccl_user_function)(const void *in,
                                    void *inout,
                                    size_t count,
                                    int32_t dtype,
                                    void *context);

/*
 Messages and bytes.
 */
typedef struct ubccl_traffic {
  /*
   Messages sent, once for each peer.
   */
  uint64_t messages_sent;
  /*
   Payload bytes sent, once for each peer.
   */
  uint64_t bytes_sent;
  /*
   Messages received.
   */
  uint64_t messages_received;
  /*
   Payload bytes received.
   */
  uint64_t bytes_received;
} ubccl_traffic;

/*
 What one rank has moved so far. Set `size` to `sizeof(struct ubccl_counters)` before asking; a later version may
 count more, and writes no more than `size` bytes.
 */
typedef struct ubccl_counters {
  /*
   Bytes of this structure as the caller knows it.
   */
  size_t size;
  /*
   Over all links.
   */
  struct ubccl_traffic total;
  /*
   To and from ranks that are threads of the same process.
   */
  struct ubccl_traffic same_process;
  /*
   To and from other processes of the same host.
   */
  struct ubccl_traffic same_host;
  /*
   To and from other hosts.
   */
  struct ubccl_traffic network;
} ubccl_counters;

/*
 How a communicator is made. Fill it with `ubccl_config_init`, then change what you need.
 */
typedef struct ubccl_config {
  /*
   Bytes of this structure as the caller knows it; set by `ubccl_config_init`.
   */
  size_t size;
  /*
   The version that the caller was compiled with; set by `ubccl_config_init`.
   */
  uint32_t version;
  /*
   This rank, from 0; `ubccl_config_init` has set it to `UBCCL_RANK`, or 0.
   */
  uint32_t rank;
  /*
   How many ranks; `ubccl_config_init` has set it to `UBCCL_SIZE`, or 1.
   */
  uint32_t ranks;
  /*
   Seconds that one operation may take; 0: `UBCCL_TIMEOUT` or the default.
   */
  uint32_t operation_timeout_s;
  /*
   Where the ranks meet, as text; null: `listener` if there is one, otherwise `UBCCL_RENDEZVOUS`. One rank alone
   needs none.
   */
  const char *rendezvous;
  /*
   Rank 0 only: the rendezvous that it made. It is used up by a successful `ubccl_comm_init`, and by a failed one
   unless `size` or `version` is wrong.
   */
  struct ubccl_rendezvous *listener;
  /*
   The transport's name; null: `UBCCL_TRANSPORT` or the default.
   */
  const char *transport;
  /*
   An algorithm for every call; null: `UBCCL_ALGO` or chosen by size.
   */
  const char *algorithm;
  /*
   An engine for every call, of a simulated fabric that has several; null: `UBCCL_ENGINE` or chosen by cost.
   */
  const char *engine;
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
 The version of the library as 10,000 × major + 100 × minor + patch.
 */
uint32_t ubccl_version(void);

/*
 What a result code means, in a few words. Never null; the text lives for ever.
 */
const char *ubccl_result_string(ubccl_result result);

/*
 The name of an element type, as `bf16`; "unknown type" for a number that is none. Never null; lives for ever.
 */
const char *ubccl_dtype_name(int32_t dtype);

/*
 Bytes of one element of a type.

 Errors: InvalidArgument for a number that is no type.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_dtype_size(int32_t dtype, size_t *out);

/*
 The name of an operation, as `sum`; "unknown operation" for a number that is none, or that
 `ubccl_op_create_user` or `ubccl_op_create_premul_sum` made. Never null; lives for ever.
 */
const char *ubccl_op_name(int32_t op);

/*
 Whether an operation is defined for elements of a type: all are for integers, and, or and xor for nothing else.

 Errors: InvalidArgument if it is not, or if one of the numbers is none.
 */
ubccl_result ubccl_op_supports(int32_t op,
                               int32_t dtype);

/*
 All-reduces `send` into `recv` on every rank.

 Shapes: send [count], recv [count]; the same dtype (`UBCCL_F32` …) and op (`UBCCL_SUM` …) everywhere. In place if send
         is recv.
 Order:  every rank calls in the same order; blocks until recv may be read and send reused.
 Errors: InvalidArgument, Unsupported, Closed (nothing was sent); Mismatch, Timeout, RemoteError, Aborted: these poison
         the communicator.
 Source: ncclAllReduce, MPI_Allreduce, HcclAllReduce.

 # Safety
 `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
 until it returns; they overlap only in place.
 */
ubccl_result ubccl_comm_all_reduce(const struct ubccl_comm *comm,
                                   const void *send,
                                   void *recv,
                                   size_t count,
                                   int32_t dtype,
                                   int32_t op);

/*
 `ubccl_comm_all_reduce` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_all_reduce`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_all_reduce_async(const struct ubccl_comm *comm,
                                         const void *send,
                                         void *recv,
                                         size_t count,
                                         int32_t dtype,
                                         int32_t op,
                                         struct ubccl_work **out);

/*
 Gathers everybody's `send` into `recv` on every rank, in rank order.

 Shapes: send [count], recv [ranks * count]. In place if send is recv + rank * count.
 Order, errors: as `ubccl_comm_all_reduce`.
 Source: ncclAllGather, MPI_Allgather, HcclAllGather.

 # Safety
 `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
 until it returns; they overlap only in place.
 */
ubccl_result ubccl_comm_all_gather(const struct ubccl_comm *comm,
                                   const void *send,
                                   void *recv,
                                   size_t count,
                                   int32_t dtype);

/*
 `ubccl_comm_all_gather` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_all_gather`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_all_gather_async(const struct ubccl_comm *comm,
                                         const void *send,
                                         void *recv,
                                         size_t count,
                                         int32_t dtype,
                                         struct ubccl_work **out);

/*
 Reduces everybody's `send` and leaves block `rank` of the result in `recv`.

 Shapes: send [ranks * count], recv [count]. In place if recv is send + rank * count; the rest of send is left as it was.
 Order, errors: as `ubccl_comm_all_reduce`.
 Source: ncclReduceScatter, MPI_Reduce_scatter_block, HcclReduceScatter.

 # Safety
 `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
 until it returns; they overlap only in place.
 */
ubccl_result ubccl_comm_reduce_scatter(const struct ubccl_comm *comm,
                                       const void *send,
                                       void *recv,
                                       size_t count,
                                       int32_t dtype,
                                       int32_t op);

/*
 `ubccl_comm_reduce_scatter` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_reduce_scatter`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_reduce_scatter_async(const struct ubccl_comm *comm,
                                             const void *send,
                                             void *recv,
                                             size_t count,
                                             int32_t dtype,
                                             int32_t op,
                                             struct ubccl_work **out);

/*
 Gives rank r block r of everybody's `send`, in rank order in `recv`.

 Shapes: send and recv [ranks * count]. In place if send is recv: what comes from a rank takes the place of what goes to
         it.
 Order, errors: as `ubccl_comm_all_reduce`.
 Source: ncclAlltoAll, MPI_Alltoall, HcclAlltoAll.

 # Safety
 `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
 until it returns; they overlap only in place.
 */
ubccl_result ubccl_comm_all_to_all(const struct ubccl_comm *comm,
                                   const void *send,
                                   void *recv,
                                   size_t count,
                                   int32_t dtype);

/*
 `ubccl_comm_all_to_all` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_all_to_all`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_all_to_all_async(const struct ubccl_comm *comm,
                                         const void *send,
                                         void *recv,
                                         size_t count,
                                         int32_t dtype,
                                         struct ubccl_work **out);

/*
 Returns when every rank has called it.

 Order, errors: as `ubccl_comm_all_reduce`.
 Source: MPI_Barrier, HcclBarrier.
 */
ubccl_result ubccl_comm_barrier(const struct ubccl_comm *comm);

/*
 `ubccl_comm_barrier` without waiting: see `ubccl_work`.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_comm_barrier_async(const struct ubccl_comm *comm, struct ubccl_work **out);

/*
 Adds `ubccl_comm_all_reduce` to a group: see `ubccl_group`. Refused if the arguments are wrong, with the same codes.

 # Safety
 As for `ubccl_comm_all_reduce`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_all_reduce(struct ubccl_group *group,
                                    const void *send,
                                    void *recv,
                                    size_t count,
                                    int32_t dtype,
                                    int32_t op);

/*
 Adds `ubccl_comm_all_gather` to a group: see `ubccl_group`.

 # Safety
 As for `ubccl_comm_all_gather`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_all_gather(struct ubccl_group *group,
                                    const void *send,
                                    void *recv,
                                    size_t count,
                                    int32_t dtype);

/*
 Adds `ubccl_comm_reduce_scatter` to a group: see `ubccl_group`.

 # Safety
 As for `ubccl_comm_reduce_scatter`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_reduce_scatter(struct ubccl_group *group,
                                        const void *send,
                                        void *recv,
                                        size_t count,
                                        int32_t dtype,
                                        int32_t op);

/*
 Adds `ubccl_comm_all_to_all` to a group: see `ubccl_group`.

 # Safety
 As for `ubccl_comm_all_to_all`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_all_to_all(struct ubccl_group *group,
                                    const void *send,
                                    void *recv,
                                    size_t count,
                                    int32_t dtype);

/*
 Adds `ubccl_comm_broadcast` to a group: see `ubccl_group`.

 # Safety
 As for `ubccl_comm_broadcast`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_broadcast(struct ubccl_group *group,
                                   const void *send,
                                   void *recv,
                                   size_t count,
                                   int32_t dtype,
                                   uint32_t root);

/*
 Adds `ubccl_comm_reduce` to a group: see `ubccl_group`.

 # Safety
 As for `ubccl_comm_reduce`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_reduce(struct ubccl_group *group,
                                const void *send,
                                void *recv,
                                size_t count,
                                int32_t dtype,
                                int32_t op,
                                uint32_t root);

/*
 Adds `ubccl_comm_gather` to a group: see `ubccl_group`.

 # Safety
 As for `ubccl_comm_gather`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_gather(struct ubccl_group *group,
                                const void *send,
                                void *recv,
                                size_t count,
                                int32_t dtype,
                                uint32_t root);

/*
 Adds `ubccl_comm_scatter` to a group: see `ubccl_group`.

 # Safety
 As for `ubccl_comm_scatter`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_scatter(struct ubccl_group *group,
                                 const void *send,
                                 void *recv,
                                 size_t count,
                                 int32_t dtype,
                                 uint32_t root);

/*
 Adds `ubccl_comm_send` to a group: see `ubccl_group`. A rank may send to itself, and receives it in the same group.

 # Safety
 As for `ubccl_comm_send`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_send(struct ubccl_group *group,
                              const void *send,
                              size_t count,
                              int32_t dtype,
                              uint32_t peer);

/*
 Adds `ubccl_comm_receive` to a group: see `ubccl_group`.

 # Safety
 As for `ubccl_comm_receive`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_receive(struct ubccl_group *group,
                                 void *recv,
                                 size_t count,
                                 int32_t dtype,
                                 uint32_t peer);

/*
 Adds `ubccl_comm_all_gather_v` to a group: see `ubccl_group`.

 # Safety
 As for `ubccl_comm_all_gather_v`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_all_gather_v(struct ubccl_group *group,
                                      const void *send,
                                      void *recv,
                                      const size_t *counts,
                                      const size_t *displacements,
                                      int32_t dtype);

/*
 Adds `ubccl_comm_reduce_scatter_v` to a group: see `ubccl_group`.

 # Safety
 As for `ubccl_comm_reduce_scatter_v`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_reduce_scatter_v(struct ubccl_group *group,
                                          const void *send,
                                          void *recv,
                                          const size_t *counts,
                                          int32_t dtype,
                                          int32_t op);

/*
 Adds `ubccl_comm_gather_v` to a group: see `ubccl_group`.

 # Safety
 As for `ubccl_comm_gather_v`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_gather_v(struct ubccl_group *group,
                                  const void *send,
                                  size_t count,
                                  void *recv,
                                  const size_t *counts,
                                  const size_t *displacements,
                                  int32_t dtype,
                                  uint32_t root);

/*
 Adds `ubccl_comm_scatter_v` to a group: see `ubccl_group`.

 # Safety
 As for `ubccl_comm_scatter_v`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_scatter_v(struct ubccl_group *group,
                                   const void *send,
                                   const size_t *counts,
                                   const size_t *displacements,
                                   void *recv,
                                   size_t count,
                                   int32_t dtype,
                                   uint32_t root);

/*
 Adds `ubccl_comm_all_to_all_v` to a group: see `ubccl_group`.

 # Safety
 As for `ubccl_comm_all_to_all_v`, for the buffers until the group is over.
 */
ubccl_result ubccl_group_all_to_all_v(struct ubccl_group *group,
                                      const void *send,
                                      const size_t *send_counts,
                                      const size_t *send_displacements,
                                      void *recv,
                                      const size_t *recv_counts,
                                      const size_t *recv_displacements,
                                      int32_t dtype);

/*
 Sends `send` to `peer`, which calls `ubccl_comm_receive` with the same count and dtype; messages of a pair arrive in
 order. Returns when `send` may be changed, which may be before the peer has received.

 Shapes: send [count]. `peer` is another rank; to itself a rank sends with `ubccl_comm_send_receive`.
 Errors: as `ubccl_comm_all_reduce`.
 Source: ncclSend, MPI_Send, HcclSend.

 # Safety
 `send` is readable for `count` elements (null is fine for none), and left alone until it returns.
 */
ubccl_result ubccl_comm_send(const struct ubccl_comm *comm,
                             const void *send,
                             size_t count,
                             int32_t dtype,
                             uint32_t peer);

/*
 `ubccl_comm_send` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_send`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_send_async(const struct ubccl_comm *comm,
                                   const void *send,
                                   size_t count,
                                   int32_t dtype,
                                   uint32_t peer,
                                   struct ubccl_work **out);

/*
 Receives into `recv` what `peer` sends. See `ubccl_comm_send`.

 Shapes: recv [count].
 Errors: as `ubccl_comm_all_reduce`.
 Source: ncclRecv, MPI_Recv, HcclRecv.

 # Safety
 `recv` is writable for `count` elements (null is fine for none), and left alone until it returns.
 */
ubccl_result ubccl_comm_receive(const struct ubccl_comm *comm,
                                void *recv,
                                size_t count,
                                int32_t dtype,
                                uint32_t peer);

/*
 `ubccl_comm_receive` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_receive`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_receive_async(const struct ubccl_comm *comm,
                                      void *recv,
                                      size_t count,
                                      int32_t dtype,
                                      uint32_t peer,
                                      struct ubccl_work **out);

/*
 Sends `send` to rank `to` and receives `recv` from rank `from`, both at once.

 Shapes: send and recv [count]. `to` and `from` may both be this rank. In place if send is recv.
 Errors: as `ubccl_comm_all_reduce`.
 Source: MPI_Sendrecv; ncclSend and ncclRecv in one group.

 # Safety
 `send` is readable and `recv` writable for `count` elements (null is fine for none), and both are left alone until it
 returns; they overlap only in place.
 */
ubccl_result ubccl_comm_send_receive(const struct ubccl_comm *comm,
                                     const void *send,
                                     void *recv,
                                     size_t count,
                                     int32_t dtype,
                                     uint32_t to,
                                     uint32_t from);

/*
 `ubccl_comm_send_receive` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_send_receive`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_send_receive_async(const struct ubccl_comm *comm,
                                           const void *send,
                                           void *recv,
                                           size_t count,
                                           int32_t dtype,
                                           uint32_t to,
                                           uint32_t from,
                                           struct ubccl_work **out);

/*
 Prepares `ubccl_comm_all_reduce`: see `ubccl_prepared`. `UBCCL_UNSUPPORTED` for a pre-multiplied sum.

 # Safety
 As for `ubccl_comm_all_reduce`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_all_reduce_prepare(const struct ubccl_comm *comm,
                                           const void *send,
                                           void *recv,
                                           size_t count,
                                           int32_t dtype,
                                           int32_t op,
                                           struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_all_gather`: see `ubccl_prepared`.

 # Safety
 As for `ubccl_comm_all_gather`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_all_gather_prepare(const struct ubccl_comm *comm,
                                           const void *send,
                                           void *recv,
                                           size_t count,
                                           int32_t dtype,
                                           struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_reduce_scatter`: see `ubccl_prepared`. `UBCCL_UNSUPPORTED` for a pre-multiplied sum.

 # Safety
 As for `ubccl_comm_reduce_scatter`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_reduce_scatter_prepare(const struct ubccl_comm *comm,
                                               const void *send,
                                               void *recv,
                                               size_t count,
                                               int32_t dtype,
                                               int32_t op,
                                               struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_all_to_all`: see `ubccl_prepared`.

 # Safety
 As for `ubccl_comm_all_to_all`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_all_to_all_prepare(const struct ubccl_comm *comm,
                                           const void *send,
                                           void *recv,
                                           size_t count,
                                           int32_t dtype,
                                           struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_barrier`: see `ubccl_prepared`.

 # Safety
 As for `ubccl_comm_barrier`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_barrier_prepare(const struct ubccl_comm *comm,
                                        struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_broadcast`: see `ubccl_prepared`.

 # Safety
 As for `ubccl_comm_broadcast`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_broadcast_prepare(const struct ubccl_comm *comm,
                                          const void *send,
                                          void *recv,
                                          size_t count,
                                          int32_t dtype,
                                          uint32_t root,
                                          struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_reduce`: see `ubccl_prepared`. `UBCCL_UNSUPPORTED` for a pre-multiplied sum.

 # Safety
 As for `ubccl_comm_reduce`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_reduce_prepare(const struct ubccl_comm *comm,
                                       const void *send,
                                       void *recv,
                                       size_t count,
                                       int32_t dtype,
                                       int32_t op,
                                       uint32_t root,
                                       struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_gather`: see `ubccl_prepared`.

 # Safety
 As for `ubccl_comm_gather`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_gather_prepare(const struct ubccl_comm *comm,
                                       const void *send,
                                       void *recv,
                                       size_t count,
                                       int32_t dtype,
                                       uint32_t root,
                                       struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_scatter`: see `ubccl_prepared`.

 # Safety
 As for `ubccl_comm_scatter`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_scatter_prepare(const struct ubccl_comm *comm,
                                        const void *send,
                                        void *recv,
                                        size_t count,
                                        int32_t dtype,
                                        uint32_t root,
                                        struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_send`: see `ubccl_prepared`.

 # Safety
 As for `ubccl_comm_send`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_send_prepare(const struct ubccl_comm *comm,
                                     const void *send,
                                     size_t count,
                                     int32_t dtype,
                                     uint32_t peer,
                                     struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_receive`: see `ubccl_prepared`.

 # Safety
 As for `ubccl_comm_receive`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_receive_prepare(const struct ubccl_comm *comm,
                                        void *recv,
                                        size_t count,
                                        int32_t dtype,
                                        uint32_t peer,
                                        struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_send_receive`: see `ubccl_prepared`.

 # Safety
 As for `ubccl_comm_send_receive`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_send_receive_prepare(const struct ubccl_comm *comm,
                                             const void *send,
                                             void *recv,
                                             size_t count,
                                             int32_t dtype,
                                             uint32_t to,
                                             uint32_t from,
                                             struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_all_gather_v`: see `ubccl_prepared`.

 # Safety
 As for `ubccl_comm_all_gather_v`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_all_gather_v_prepare(const struct ubccl_comm *comm,
                                             const void *send,
                                             void *recv,
                                             const size_t *counts,
                                             const size_t *displacements,
                                             int32_t dtype,
                                             struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_reduce_scatter_v`: see `ubccl_prepared`. `UBCCL_UNSUPPORTED` for a pre-multiplied sum.

 # Safety
 As for `ubccl_comm_reduce_scatter_v`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_reduce_scatter_v_prepare(const struct ubccl_comm *comm,
                                                 const void *send,
                                                 void *recv,
                                                 const size_t *counts,
                                                 int32_t dtype,
                                                 int32_t op,
                                                 struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_gather_v`: see `ubccl_prepared`.

 # Safety
 As for `ubccl_comm_gather_v`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_gather_v_prepare(const struct ubccl_comm *comm,
                                         const void *send,
                                         size_t count,
                                         void *recv,
                                         const size_t *counts,
                                         const size_t *displacements,
                                         int32_t dtype,
                                         uint32_t root,
                                         struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_scatter_v`: see `ubccl_prepared`.

 # Safety
 As for `ubccl_comm_scatter_v`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_scatter_v_prepare(const struct ubccl_comm *comm,
                                          const void *send,
                                          const size_t *counts,
                                          const size_t *displacements,
                                          void *recv,
                                          size_t count,
                                          int32_t dtype,
                                          uint32_t root,
                                          struct ubccl_prepared **out);

/*
 Prepares `ubccl_comm_all_to_all_v`: see `ubccl_prepared`.

 # Safety
 As for `ubccl_comm_all_to_all_v`, for the buffers whenever it is under way; `out` is null or may be written.
 */
ubccl_result ubccl_comm_all_to_all_v_prepare(const struct ubccl_comm *comm,
                                             const void *send,
                                             const size_t *send_counts,
                                             const size_t *send_displacements,
                                             void *recv,
                                             const size_t *recv_counts,
                                             const size_t *recv_displacements,
                                             int32_t dtype,
                                             struct ubccl_prepared **out);

/*
 Gives every rank the root's `send` in `recv`.

 Shapes: send [count], read on the root only (null is fine elsewhere); recv [count]. In place if send is recv.
 Order, errors: as `ubccl_comm_all_reduce`.
 Source: ncclBroadcast, MPI_Bcast, HcclBroadcast.

 # Safety
 `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
 until it returns; they overlap only in place.
 */
ubccl_result ubccl_comm_broadcast(const struct ubccl_comm *comm,
                                  const void *send,
                                  void *recv,
                                  size_t count,
                                  int32_t dtype,
                                  uint32_t root);

/*
 `ubccl_comm_broadcast` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_broadcast`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_broadcast_async(const struct ubccl_comm *comm,
                                        const void *send,
                                        void *recv,
                                        size_t count,
                                        int32_t dtype,
                                        uint32_t root,
                                        struct ubccl_work **out);

/*
 Reduces everybody's `send` into `recv` on the root.

 Shapes: send [count]; recv [count] on the root, not looked at elsewhere (null is fine). In place if send is recv.
 Order, errors: as `ubccl_comm_all_reduce`.
 Source: ncclReduce, MPI_Reduce, HcclReduce.

 # Safety
 `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
 until it returns; they overlap only in place.
 */
ubccl_result ubccl_comm_reduce(const struct ubccl_comm *comm,
                               const void *send,
                               void *recv,
                               size_t count,
                               int32_t dtype,
                               int32_t op,
                               uint32_t root);

/*
 `ubccl_comm_reduce` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_reduce`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_reduce_async(const struct ubccl_comm *comm,
                                     const void *send,
                                     void *recv,
                                     size_t count,
                                     int32_t dtype,
                                     int32_t op,
                                     uint32_t root,
                                     struct ubccl_work **out);

/*
 Gathers everybody's `send` into `recv` on the root, in rank order.

 Shapes: send [count]; recv [ranks * count] on the root, not looked at elsewhere (null is fine). In place if, on the root,
         send is recv + root * count.
 Order, errors: as `ubccl_comm_all_reduce`.
 Source: ncclGather, MPI_Gather.

 # Safety
 `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
 until it returns; they overlap only in place.
 */
ubccl_result ubccl_comm_gather(const struct ubccl_comm *comm,
                               const void *send,
                               void *recv,
                               size_t count,
                               int32_t dtype,
                               uint32_t root);

/*
 `ubccl_comm_gather` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_gather`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_gather_async(const struct ubccl_comm *comm,
                                     const void *send,
                                     void *recv,
                                     size_t count,
                                     int32_t dtype,
                                     uint32_t root,
                                     struct ubccl_work **out);

/*
 Gives rank r block r of the root's `send` in `recv`.

 Shapes: send [ranks * count] on the root, not looked at elsewhere (null is fine); recv [count]. In place if, on the root,
         recv is send + root * count.
 Order, errors: as `ubccl_comm_all_reduce`.
 Source: ncclScatter, MPI_Scatter, HcclScatter.

 # Safety
 `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
 until it returns; they overlap only in place.
 */
ubccl_result ubccl_comm_scatter(const struct ubccl_comm *comm,
                                const void *send,
                                void *recv,
                                size_t count,
                                int32_t dtype,
                                uint32_t root);

/*
 `ubccl_comm_scatter` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_scatter`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_scatter_async(const struct ubccl_comm *comm,
                                      const void *send,
                                      void *recv,
                                      size_t count,
                                      int32_t dtype,
                                      uint32_t root,
                                      struct ubccl_work **out);

/*
 Gathers blocks of different lengths on every rank.

 Shapes: counts [ranks], the same on every rank, says how much comes from whom; displacements [ranks] where in this
         rank's recv it goes (in elements; null: one after the other). send [counts[rank]]; recv reaches at least to the
         end of the last block, and what lies between blocks is left as it was. In place if send is
         recv + displacements[rank].
 Order, errors: as `ubccl_comm_all_reduce`; InvalidArgument if blocks overlap or reach too far.
 Source: MPI_Allgatherv, HcclAllGatherV.

 # Safety
 `send` is readable and `recv` writable for these shapes (null is fine for no elements), the tables where they are
 looked at, and all are left alone until it returns; the buffers overlap only in place.
 */
ubccl_result ubccl_comm_all_gather_v(const struct ubccl_comm *comm,
                                     const void *send,
                                     void *recv,
                                     const size_t *counts,
                                     const size_t *displacements,
                                     int32_t dtype);

/*
 `ubccl_comm_all_gather_v` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_all_gather_v`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_all_gather_v_async(const struct ubccl_comm *comm,
                                           const void *send,
                                           void *recv,
                                           const size_t *counts,
                                           const size_t *displacements,
                                           int32_t dtype,
                                           struct ubccl_work **out);

/*
 Reduces everybody's `send` and leaves `counts[r]` elements of the result on rank r, in rank order.

 Shapes: counts [ranks], the same on every rank; send as long as all counts together, recv [counts[rank]]. In place if
         recv is where this rank's block of send is; the rest of send is left as it was.
 Order, errors: as `ubccl_comm_all_reduce`.
 Source: MPI_Reduce_scatter, HcclReduceScatterV.

 # Safety
 `send` is readable and `recv` writable for these shapes (null is fine for no elements), the tables where they are
 looked at, and all are left alone until it returns; the buffers overlap only in place.
 */
ubccl_result ubccl_comm_reduce_scatter_v(const struct ubccl_comm *comm,
                                         const void *send,
                                         void *recv,
                                         const size_t *counts,
                                         int32_t dtype,
                                         int32_t op);

/*
 `ubccl_comm_reduce_scatter_v` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_reduce_scatter_v`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_reduce_scatter_v_async(const struct ubccl_comm *comm,
                                               const void *send,
                                               void *recv,
                                               const size_t *counts,
                                               int32_t dtype,
                                               int32_t op,
                                               struct ubccl_work **out);

/*
 Gathers blocks of different lengths on the root.

 Shapes: send [count], count of this rank's own; on the root counts and displacements [ranks] say how much comes from whom
         and where in recv it goes (null displacements: one after the other), and recv reaches at least to the end of
         the last block; elsewhere recv, counts and displacements are not looked at (null is fine). In place if, on the
         root, send is recv + displacements[root].
 Order, errors: as `ubccl_comm_all_reduce`; InvalidArgument if blocks overlap, or the root's count is not its entry;
         Mismatch if another rank's is not.
 Source: MPI_Gatherv.

 # Safety
 `send` is readable and `recv` writable for these shapes (null is fine for no elements), the tables where they are
 looked at, and all are left alone until it returns; the buffers overlap only in place.
 */
ubccl_result ubccl_comm_gather_v(const struct ubccl_comm *comm,
                                 const void *send,
                                 size_t count,
                                 void *recv,
                                 const size_t *counts,
                                 const size_t *displacements,
                                 int32_t dtype,
                                 uint32_t root);

/*
 `ubccl_comm_gather_v` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_gather_v`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_gather_v_async(const struct ubccl_comm *comm,
                                       const void *send,
                                       size_t count,
                                       void *recv,
                                       const size_t *counts,
                                       const size_t *displacements,
                                       int32_t dtype,
                                       uint32_t root,
                                       struct ubccl_work **out);

/*
 Gives every rank its block of the root's `send`, of any length.

 Shapes: recv [count], count of this rank's own; on the root counts and displacements [ranks] say how much goes to whom and
         where in send it lies (null displacements: one after the other); elsewhere send, counts and displacements are
         not looked at (null is fine). In place if, on the root, recv is send + displacements[root].
 Order, errors: as `ubccl_comm_all_reduce`; InvalidArgument if the root's count is not its entry; Mismatch if another
         rank's is not.
 Source: MPI_Scatterv.

 # Safety
 `send` is readable and `recv` writable for these shapes (null is fine for no elements), the tables where they are
 looked at, and all are left alone until it returns; the buffers overlap only in place.
 */
ubccl_result ubccl_comm_scatter_v(const struct ubccl_comm *comm,
                                  const void *send,
                                  const size_t *counts,
                                  const size_t *displacements,
                                  void *recv,
                                  size_t count,
                                  int32_t dtype,
                                  uint32_t root);

/*
 `ubccl_comm_scatter_v` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_scatter_v`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_scatter_v_async(const struct ubccl_comm *comm,
                                        const void *send,
                                        const size_t *counts,
                                        const size_t *displacements,
                                        void *recv,
                                        size_t count,
                                        int32_t dtype,
                                        uint32_t root,
                                        struct ubccl_work **out);

/*
 Exchanges blocks of any length.

 Shapes: send_counts and send_displacements [ranks] say how much of send goes to whom and where it lies, recv_counts and
         recv_displacements [ranks] how much comes from whom and where in recv it goes (in elements; null displacements:
         one after the other); what one rank sends another is as long as the other expects. The buffers reach at least to
         the end of their last blocks; what lies between blocks is left as it was. Blocks that are sent may overlap. In
         place if send is recv, and then both tables say the same.
 Order, errors: as `ubccl_comm_all_reduce`; InvalidArgument if blocks that are received overlap; Mismatch, naming both
         lengths, if they differ.
 Source: MPI_Alltoallv, HcclAlltoAllV.

 # Safety
 `send` is readable and `recv` writable for these shapes (null is fine for no elements), the tables where they are
 looked at, and all are left alone until it returns; the buffers overlap only in place.
 */
ubccl_result ubccl_comm_all_to_all_v(const struct ubccl_comm *comm,
                                     const void *send,
                                     const size_t *send_counts,
                                     const size_t *send_displacements,
                                     void *recv,
                                     const size_t *recv_counts,
                                     const size_t *recv_displacements,
                                     int32_t dtype);

/*
 `ubccl_comm_all_to_all_v` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_all_to_all_v`, for the buffers until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_all_to_all_v_async(const struct ubccl_comm *comm,
                                           const void *send,
                                           const size_t *send_counts,
                                           const size_t *send_displacements,
                                           void *recv,
                                           const size_t *recv_counts,
                                           const size_t *recv_displacements,
                                           int32_t dtype,
                                           struct ubccl_work **out);

/*
 Sends `send` with a tag to `peer`, which receives it by `ubccl_comm_receive_tagged` with the same tag, count and
 dtype. Returns when `send` may be changed, which may be before the peer has received.

 Shapes: send [count].
 Order:  messages of a pair with equal tags arrive in order; others in the order in which they are received. A
         message that is not received yet may hold up the tagged messages behind it, never others. Messages without
         a tag are messages apart.
 Errors: as `ubccl_comm_all_reduce`; InvalidArgument if it goes to this rank itself and neither a receive waits nor
         64 MiB of other messages leave room.
 Source: MPI_Send.

 # Safety
 `send` is readable for `count` elements (null is fine for none), and left alone until it returns.
 */
ubccl_result ubccl_comm_send_tagged(const struct ubccl_comm *comm,
                                    const void *send,
                                    size_t count,
                                    int32_t dtype,
                                    uint32_t peer,
                                    uint32_t tag);

/*
 `ubccl_comm_send_tagged` without waiting: see `ubccl_work`.

 # Safety
 As for `ubccl_comm_send_tagged`, for the buffer until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_send_tagged_async(const struct ubccl_comm *comm,
                                          const void *send,
                                          size_t count,
                                          int32_t dtype,
                                          uint32_t peer,
                                          uint32_t tag,
                                          struct ubccl_work **out);

/*
 Receives a message with a tag into `recv`, from rank `source` or, if that is `UBCCL_ANY_SOURCE`, from any, and tells
 from whom it is.

 Shapes: recv [count]; `from` may be null.
 Order:  of one sender and tag in the order sent, by receives in the order called. Messages that come before the one
         waited for are kept: up to 4,096 and 64 MiB of them; a sender nobody waits for keeps its own.
 Errors: as `ubccl_comm_all_reduce`; Mismatch, naming peer and tag, if the message has another count or dtype, or
         messages that nobody receives take more room than there is.
 Source: MPI_Recv with MPI_ANY_SOURCE.

 # Safety
 `recv` is writable for `count` elements (null is fine for none), and left alone until it returns; `from` is null or
 may be written.
 */
ubccl_result ubccl_comm_receive_tagged(const struct ubccl_comm *comm,
                                       void *recv,
                                       size_t count,
                                       int32_t dtype,
                                       uint32_t source,
                                       uint32_t tag,
                                       uint32_t *from);

/*
 `ubccl_comm_receive_tagged` without waiting: see `ubccl_work`; `ubccl_work_source` tells from whom the message is.

 # Safety
 As for `ubccl_comm_receive_tagged`, for the buffer until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_comm_receive_tagged_async(const struct ubccl_comm *comm,
                                             void *recv,
                                             size_t count,
                                             int32_t dtype,
                                             uint32_t source,
                                             uint32_t tag,
                                             struct ubccl_work **out);

/*
 Sets how long an operation may take that is issued or waited for from now on. An operation that takes longer fails
 with `UBCCL_TIMEOUT` and poisons the communicator.

 Errors: InvalidArgument if `timeout_ms` is 0.
 */
ubccl_result ubccl_comm_set_operation_timeout(const struct ubccl_comm *comm,
                                              uint64_t timeout_ms);

/*
 Ends the communicator on every rank: whatever is under way or called later fails with `UBCCL_ABORTED`. Returns when
 no buffer of this rank is touched any more; waits for nobody. The handle is still to be destroyed.

 Errors: Closed.
 Source: ncclCommAbort, which frees the communicator too.
 */
ubccl_result ubccl_comm_abort(const struct ubccl_comm *comm);

/*
 Leaves in good order: the others may close later, and operations of theirs that need this rank fail. Afterwards the
 queries still answer, calls give `UBCCL_CLOSED`, and the handle is still to be destroyed.

 Errors: InvalidArgument, and nothing is changed, if operations are under way (wait for their works) or another
         thread is in a call; Closed if it was closed before; Mismatch if another rank has called something else or a
         message came that no call took; RemoteError if another has called less and left; the first cause if the
         communicator is poisoned. After these it is closed.
 Source: ncclCommFinalize.
 */
ubccl_result ubccl_comm_close(struct ubccl_comm *comm);

/*
 Closes the communicator if it was not, and frees it.

 Errors: InvalidArgument, and nothing is changed or freed, if it is null or was destroyed before, operations are
         under way (wait for their works, or abort), or another thread is in a call. Otherwise as
         `ubccl_comm_close`, and it is freed whatever the result says.
 Source: ncclCommDestroy.
 */
ubccl_result ubccl_comm_destroy(struct ubccl_comm *comm);

/*
 The whole message of the last call of this thread that failed, or of the last `ubccl_comm_async_error` that found an
 error; empty if there is none. Never null; valid until this thread's next call that fails.

 Source: ncclGetLastError.
 */
const char *ubccl_last_error(void);

/*
 The last error of this thread as fields: which rank, on which host, in which operation.

 Errors: InvalidArgument if `out` is null or its `size` too small.

 # Safety
 `out` is null, or its `size` is readable and says how many of its bytes may be written.
 */
ubccl_result ubccl_last_error_info(struct ubccl_error_info *out);

/*
 Begins a group.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_group_begin(const struct ubccl_comm *comm, struct ubccl_group **out);

/*
 Runs a group, blocks until all of it is done, and frees it whatever the result says.

 Errors: InvalidArgument if it is null, was run, issued or destroyed before, its communicator was, or nothing in it
         fits together; Unsupported, Closed: nothing was sent. Otherwise as `ubccl_comm_all_reduce`.
 Source: ncclGroupEnd.
 */
ubccl_result ubccl_group_run(struct ubccl_group *group);

/*
 Runs a group without waiting: see `ubccl_work`. Frees the group whatever the result says, unless `out` is null.

 Errors: as `ubccl_group_run`; what fails later comes from the work.

 # Safety
 All buffers in the group are as their calls need them until the work is over; `out` is null or may be written.
 */
ubccl_result ubccl_group_issue(struct ubccl_group *group,
                               struct ubccl_work **out);

/*
 Frees a group that is not to run. Nothing was sent.

 Errors: InvalidArgument if it is null, or was run, issued or destroyed before.
 */
ubccl_result ubccl_group_destroy(struct ubccl_group *group);

/*
 Allocates `bytes` bytes of registered memory, zeroed, at the beginning of a page, and writes its address to `memory`.
 Any part of it may be the buffer of any call on any communicator; on `comm` its messages are read and written in place
 where the transport can (over shared memory), which changes no result. Other ranks need not have any.

 Order:  this rank's own affair; waits for nobody. Allocate once and use often: pages come at once.
 Errors: InvalidArgument if `memory` is null, or for more bytes than there are addresses; Closed; SystemError if the
         host has no more memory.
 Source: ncclMemAlloc with ncclCommRegister.

 # Safety
 `memory` is null or may be written.
 */
ubccl_result ubccl_mem_alloc(const struct ubccl_comm *comm,
                             size_t bytes,
                             void **memory);

/*
 Frees memory that `ubccl_mem_alloc` gave for this communicator; null is nothing. No operation that names it is under
 way. What was not freed goes with `ubccl_comm_destroy`.

 Errors: InvalidArgument, and nothing is freed, if it is not such memory or was freed before.
 Source: ncclMemFree.
 */
ubccl_result ubccl_mem_free(const struct ubccl_comm *comm,
                            void *memory);

/*
 Makes an operation of a function. It is commutative, or only plans that combine ranks in their order run it:
 `((x0 op x1) op x2) …`. It must be associative, and may be used with every element type.

 Ranks: all must use operations of one `name` in one call; that the functions behind it are the same is the caller's
        promise.
 Errors: InvalidArgument if `name` is null, empty or no UTF-8, or `function` is null.
 Source: MPI_Op_create.

 # Safety
 `name` is null or zero-terminated. `function` may be called as its type says, with `context`, until the process
 ends: an operation that is destroyed may still be part of one under way. `out` is null or may be written.
 */
ubccl_result ubccl_op_create_user(const char *name,
                                  bool is_commutative,
                                  ubccl_user_function function,
                                  void *context,
                                  int32_t *out);

/*
 Makes a sum of every rank's input times that rank's `scalar`, which may differ between ranks. Each product is rounded
 to the element type before it is summed; for integers the scalar must be whole. Out of place the products need a copy
 of the input, in place the input is multiplied where it stands.

 Source: ncclRedOpCreatePreMulSum.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_op_create_premul_sum(double scalar,
                                        int32_t *out);

/*
 Frees an operation's number; what was issued with it goes on.

 Errors: InvalidArgument if it is none that was made, or was destroyed before.
 Source: ncclRedOpDestroy, MPI_Op_free.
 */
ubccl_result ubccl_op_destroy(int32_t op);

/*
 Starts it.

 Errors: InvalidArgument if it is under way or its communicator was destroyed; otherwise as the call without waiting.
 Source: MPI_Start.

 # Safety
 Its buffers are as the call needs them until the operation is over.
 */
ubccl_result ubccl_prepared_start(struct ubccl_prepared *prepared);

/*
 Whether it is not under way, or not any more; moves on what can move, and does not wait.

 Errors: InvalidArgument; Mismatch, Timeout, RemoteError, Aborted if the operation failed.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_prepared_test(struct ubccl_prepared *prepared, bool *out);

/*
 Waits until it is done, if it is under way. After an error too its buffers are not touched any more.

 Errors: as `ubccl_prepared_test`.
 */
ubccl_result ubccl_prepared_wait(struct ubccl_prepared *prepared);

/*
 Waits for at most `timeout_ms`; if it is not done by then, `out` says so, and nothing is harmed.

 Errors: as `ubccl_prepared_test`.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_prepared_wait_timeout(struct ubccl_prepared *prepared,
                                         uint64_t timeout_ms,
                                         bool *out);

/*
 Frees it. If it is under way it is waited for, so that afterwards its buffers belong to the caller.

 Errors: InvalidArgument if it is null, was freed before, or another thread is in a call with it; otherwise the
         operation's result, and it is freed.
 Source: MPI_Request_free, which does not wait.
 */
ubccl_result ubccl_prepared_free(struct ubccl_prepared *prepared);

/*
 This rank and the number of ranks; either may be null.

 Source: ncclCommUserRank, ncclCommCount.

 # Safety
 `rank` and `ranks` are null or may be written.
 */
ubccl_result ubccl_comm_rank(const struct ubccl_comm *comm, uint32_t *rank, uint32_t *ranks);

/*
 Writes the transport's name, zero-terminated, into `text` (`len` bytes; 32 suffice).

 Errors: InvalidArgument, also if `len` is too small.

 # Safety
 `text` is null or has `len` bytes.
 */
ubccl_result ubccl_comm_transport(const struct ubccl_comm *comm, char *text, size_t len);

/*
 Writes the name of the algorithm that a call gets here, zero-terminated, into `text` (`len` bytes; 64 suffice).
 `collective` is its name as in the functions' names: `all_reduce`, `gather_v`. `op` and `root` are looked at only
 if it has one; `count` is as in its function, and every block's length if there are tables.

 Errors: InvalidArgument; Unsupported if no algorithm does it.

 # Safety
 `collective` is null or zero-terminated; `text` is null or has `len` bytes.
 */
ubccl_result ubccl_comm_algorithm(const struct ubccl_comm *comm,
                                  const char *collective,
                                  size_t count,
                                  int32_t dtype,
                                  int32_t op,
                                  uint32_t root,
                                  char *text,
                                  size_t len);

/*
 Whether the communicator is poisoned: `UBCCL_SUCCESS`, or the kind of the first cause, which becomes this thread's
 last error (`ubccl_last_error`, `ubccl_last_error_info`). Never blocks on other ranks.

 Source: ncclCommGetAsyncError.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_comm_async_error(const struct ubccl_comm *comm,
                                    ubccl_result *out);

/*
 What this rank has sent and received so far.

 # Safety
 `out` is null, or its `size` is readable and says how many of its bytes may be written.
 */
ubccl_result ubccl_comm_counters(const struct ubccl_comm *comm, struct ubccl_counters *out);

/*
 Bytes of memory that the communicator takes on this rank, the caller's buffers and the kernel's apart; 0 when it is
 closed.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_comm_memory(const struct ubccl_comm *comm,
                               uint64_t *out);

/*
 Makes a communicator of the ranks that give the same colour, 0 or more; this rank's number in it is its place by
 `key`, then by rank here. A rank with `UBCCL_NO_COLOUR` takes part in the call and gets null.

 The new communicator has this one's settings and is independent of it: it is closed and destroyed on its own, and
 an abort or error of one leaves the other alone. Only what ends a rank, such as its death, ends all it is in.

 Order:  every rank calls it, as a collective. Ranks that are in two communicators call on them in the same order.
 Errors: as `ubccl_comm_all_reduce`; InvalidArgument, on every rank, if ranks ask for different kinds of split;
         StartFailed or SystemError if the group cannot start, after which this one can still be used.
 Source: ncclCommSplit, MPI_Comm_split.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_comm_split(const struct ubccl_comm *comm,
                              int32_t colour,
                              int64_t key,
                              struct ubccl_comm **out);

/*
 Makes a communicator of `count` ranks, in this order: the first is its rank 0. All ranks of this one call it with the
 same list; those that are not in it get null.

 Order:  as `ubccl_comm_split`.
 Errors: as `ubccl_comm_split`; InvalidArgument, on every rank, if the list is empty, names a rank twice or one that
         does not exist, or is not the same everywhere.
 Source: MPI_Comm_create, torch.distributed.new_group.

 # Safety
 `ranks` is null, misaligned, or has `count` entries; `out` is null or may be written.
 */
ubccl_result ubccl_comm_split_ranks(const struct ubccl_comm *comm,
                                    const uint32_t *ranks,
                                    size_t count,
                                    struct ubccl_comm **out);

/*
 Makes another communicator of all ranks, with the same numbers.

 Order, errors: as `ubccl_comm_split`.
 Source: MPI_Comm_dup.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_comm_duplicate(const struct ubccl_comm *comm, struct ubccl_comm **out);

/*
 Makes a rendezvous: rank 0 does, gives its text to the other ranks (`rendezvous` of their configuration, or their
 `UBCCL_RENDEZVOUS`), and the rendezvous itself to `ubccl_comm_init` (`listener` of its own). Ranks may be forked
 between the two. The alternative: a launcher makes one, writes down the text, destroys the rendezvous, and starts
 all ranks, 0 too, with the text; rank 0 then listens at that address itself.

 Errors: SystemError if the listening socket was refused.
 Source: ncclGetUniqueId, HcclGetRootInfo.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_rendezvous_create(struct ubccl_rendezvous **out);

/*
 Writes the rendezvous' text, zero-terminated, into `text` (`len` bytes, `UBCCL_RENDEZVOUS_TEXT_MAX` suffices). The
 text has the job's secret in it: whoever has it can join.

 # Safety
 `text` is null or has `len` bytes.
 */
ubccl_result ubccl_rendezvous_text(const struct ubccl_rendezvous *rendezvous,
                                   char *text,
                                   size_t len);

/*
 Frees a rendezvous that no `ubccl_comm_init` used up; its text stays good for a rank 0 that has only the text. Null is fine.

 Errors: InvalidArgument if it was destroyed or used up before.
 */
ubccl_result ubccl_rendezvous_destroy(struct ubccl_rendezvous *rendezvous);

/*
 Fills a configuration: `rank` and `ranks` from `UBCCL_RANK` and `UBCCL_SIZE` (0 and 1 without them), everything else
 such that `ubccl_comm_init` takes it from the environment, the configuration file, or the default. A program that
 a launcher started with these variables needs to set nothing.

 Errors: InvalidArgument, naming the variable, or the file and its line, and what the value may be.

 # Safety
 `config` is null or may be written.
 */
ubccl_result ubccl_config_init(struct ubccl_config *config);

/*
 Joins a communicator; returns when all ranks have.

 Order:  every rank calls it once, with its own rank and the same rendezvous, size, transport and algorithm.
 Errors: InvalidArgument; StartFailed, naming the ranks that are missing or disagree; SystemError; Unsupported in a
         child forked from a process that has a communicator.
 Source: ncclCommInitRankConfig, HcclCommInitRootInfo.

 # Safety
 `config` is null or readable, its texts are null or zero-terminated; `out` is null or may be written.
 */
ubccl_result ubccl_comm_init(const struct ubccl_config *config,
                             struct ubccl_comm **out);

/*
 Whether the operation is done; moves on what can move, and does not wait.

 Errors: InvalidArgument; Mismatch, Timeout, RemoteError, Aborted if the operation failed: it is over.
 Source: MPI_Test.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_work_test(struct ubccl_work *work,
                             bool *out);

/*
 Waits until the operation is done. Asking again gives the same answer.

 Errors: as `ubccl_work_test`.
 Source: MPI_Wait.
 */
ubccl_result ubccl_work_wait(struct ubccl_work *work);

/*
 Waits for at most `timeout_ms`. If the operation is not done by then, `out` says so, and nothing is harmed: only the
 operation's own deadline (`ubccl_comm_set_operation_timeout`) fails it.

 Errors: as `ubccl_work_test`.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_work_wait_timeout(struct ubccl_work *work,
                                     uint64_t timeout_ms,
                                     bool *out);

/*
 Frees a work. If its operation is not over it is waited for, so that afterwards its buffers belong to the caller
 whatever the result says; `ubccl_comm_abort` cuts that short.

 Errors: InvalidArgument if it is null, was freed before, or another thread is in a call with it; otherwise the
         operation's result, and the work is freed.
 Source: MPI_Wait; MPI_Request_free, which does not wait.
 */
ubccl_result ubccl_work_free(struct ubccl_work *work);

/*
 Waits until a receive with a tag is done, and tells whose message it got.

 Errors: InvalidArgument if it is no receive with a tag; otherwise as `ubccl_work_wait`.
 Source: MPI_Status's MPI_SOURCE.

 # Safety
 `out` is null or may be written.
 */
ubccl_result ubccl_work_source(struct ubccl_work *work, uint32_t *out);

/*
 How many handles (communicators, works, groups, prepared operations, rendezvous) were made and not destroyed in this process: 0 at the end of a program
 that frees what it makes.
 */
size_t ubccl_handle_count(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* UBCCL_H */
