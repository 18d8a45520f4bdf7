/* ubccl_bench.c - times ubccl through its C interface, the way the peers' programs time theirs.
 *
 *   ubccl_bench --ranks=2 --transport=shm --ops=allreduce,barrier --sizes=8,65536 --dtype=float32 --time=0.3
 *               --max-time=4 --warm=20 --pin=1 --registered=0 --rewrite=0 --algorithm=NAME --rep=N --note=TEXT
 *
 * Operations: allreduce, allreduce_inplace, allgather, reduce_scatter, broadcast, alltoall, barrier, pingpong
 * (operations.h says what their sizes mean). Types: float32, bfloat16.
 *
 * Protocol:
 *   - one process per rank, forked before the first call of ubccl; with --pin=1 rank r runs on CPU r mod CPUs
 *   - private buffers on 4 KiB boundaries, or with --registered=1 ubccl_mem_alloc's; every page touched, one call whose
 *     result is checked
 *   - 3 calls to estimate, --warm calls to warm up (fewer if that took over a second), then back to back
 *     max(20, time / estimate) calls, at most 200,000 and at most --max-time seconds (but at least 3)
 *   - a barrier that is not timed before each timed broadcast, which would pipeline otherwise; none in other loops
 *   - each rank notes how long each of its calls took; a call's time is the maximum over ranks, and p50, min and p99
 *     are over calls; avg_us is the loop's wall time over its calls (null if barriers are in it)
 *   - with --rewrite=1 each rank writes its input anew before each timed call, and a barrier follows, neither timed: what
 *     the ranks read is then in the writer's caches or in memory, not where the last call left it
 *   - ping-pong: ranks 0 and 1, half the round trip as rank 0 sees it
 * A JSON line per operation and size on standard output, with the keys of the peers' programs. `ok` says that the
 * checked call and the last timed one were right on all ranks. Exit: 0; 1 if a result was wrong; 2 if something failed.
 *
 * Times meet in memory mapped before the fork, so that measuring does not lean on what is measured.
 */
#define _GNU_SOURCE
#include "operations.h"
#include "ubccl.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_RANKS = 256, MAX_BFLOAT16_RANKS = 64, MAX_SIZES = 64, MAX_CALLS = 200000, FEWEST_CALLS = 3, ESTIMATE_CALLS = 3 };

struct options {
    const char *transport, *algorithm, *note;
    size_t bytes[MAX_SIZES];
    int sizes;
    int wanted[KINDS];
    enum element element;
    double seconds, max_seconds;
    int ranks, pin, rep, warm, registered, rewrite;
};

/* What the ranks share. A rank writes its own entries before a barrier; others read them after it. */
struct board {
    atomic_int decision; /* rank 0's */
    struct {
        int ok;
        double wall_us;
    } rank[MAX_RANKS];
    double call_us[]; /* MAX_CALLS for each rank */
};

struct self {
    const struct options *options;
    struct board *board;
    struct ubccl_comm *comm;
    int rank;
    void *send, *recv;
};

_Noreturn static void die(const char *what, const char *detail)
{
    fprintf(stderr, "ubccl_bench: %s%s%s\n", what, *detail ? ": " : "", detail);
    exit(2);
}

static void check(ubccl_result result, const char *what)
{
    if (result == UBCCL_SUCCESS)
        return;
    fprintf(stderr, "ubccl_bench: %s: %s (%d): %s\n", what, ubccl_result_string(result), result, ubccl_last_error());
    exit(2);
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* ---- options ---- */

static double number(const char *text, double least, double most, const char *what)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most)) {
        char limits[200];
        snprintf(limits, sizeof limits, "'%s', but it must be a number from %g to %g", text, least, most);
        die(what, limits);
    }
    return value;
}

static void read_sizes(struct options *options, char *list)
{
    options->sizes = 0;
    for (char *item = strtok(list, ","); item; item = strtok(NULL, ",")) {
        if (options->sizes == MAX_SIZES)
            die("--sizes", "at most 64");
        options->bytes[options->sizes++] = (size_t)number(item, 4, 1e12, "--sizes, in bytes");
    }
}

static void read_ops(struct options *options, char *list)
{
    memset(options->wanted, 0, sizeof options->wanted);
    for (char *item = strtok(list, ","); item; item = strtok(NULL, ",")) {
        int kind = 0;
        while (kind < KINDS && strcmp(item, OPERATIONS[kind].option))
            kind++;
        if (kind == KINDS)
            die("unknown operation (the file's first lines list them)", item);
        options->wanted[kind] = 1;
    }
}

static void read_element(struct options *options, const char *name)
{
    if (!strcmp(name, ELEMENT_NAMES[FLOAT32])) options->element = FLOAT32;
    else if (!strcmp(name, ELEMENT_NAMES[BFLOAT16])) options->element = BFLOAT16;
    else die("--dtype is float32 or bfloat16, not", name);
}

static void read_option(struct options *options, const char *key, char *value)
{
    if (!strcmp(key, "--transport")) options->transport = value;
    else if (!strcmp(key, "--algorithm")) options->algorithm = value;
    else if (!strcmp(key, "--note")) options->note = value;
    else if (!strcmp(key, "--sizes")) read_sizes(options, value);
    else if (!strcmp(key, "--ops")) read_ops(options, value);
    else if (!strcmp(key, "--dtype")) read_element(options, value);
    else if (!strcmp(key, "--time")) options->seconds = number(value, 0, 1e6, key);
    else if (!strcmp(key, "--max-time")) options->max_seconds = number(value, 0, 1e6, key);
    else if (!strcmp(key, "--ranks")) options->ranks = (int)number(value, 1, MAX_RANKS, key);
    else if (!strcmp(key, "--pin")) options->pin = (int)number(value, 0, 1, key);
    else if (!strcmp(key, "--rep")) options->rep = (int)number(value, 0, 1e9, key);
    else if (!strcmp(key, "--registered")) options->registered = (int)number(value, 0, 1, key);
    else if (!strcmp(key, "--rewrite")) options->rewrite = (int)number(value, 0, 1, key);
    else if (!strcmp(key, "--warm")) options->warm = (int)number(value, 1, 1e6, key);
    else die("unknown option (the file's first lines list them)", key);
}

static void read_options(struct options *options, int argc, char **argv)
{
    char sizes[] = "8,64,1024,8192,65536,524288,1048576,4194304,16777216,67108864";
    char ops[] = "allreduce,allreduce_inplace,allgather,reduce_scatter,broadcast,alltoall,barrier,pingpong";
    *options = (struct options){
        .transport = "shm", .note = "", .seconds = 0.3, .max_seconds = 4, .ranks = 2, .warm = 20};
    read_sizes(options, sizes);
    read_ops(options, ops);
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value)
            die("options are --key=value, not", argv[i]);
        *value++ = 0;
        read_option(options, argv[i], value);
    }
    if (!options->sizes)
        die("nothing to do", "--sizes is empty");
    if (options->element == BFLOAT16 && options->ranks > MAX_BFLOAT16_RANKS)
        die("--dtype=bfloat16", "at most 64 ranks: their sums are the last it holds exactly");
}

/* ---- one call, and agreeing ---- */

static void ping_pong(const struct self *self, size_t count, int32_t dtype)
{
    uint32_t peer = 1 - (uint32_t)self->rank;
    if (self->rank == 0)
        check(ubccl_comm_send(self->comm, self->send, count, dtype, peer), "send");
    check(ubccl_comm_receive(self->comm, self->recv, count, dtype, peer), "receive");
    if (self->rank == 1)
        check(ubccl_comm_send(self->comm, self->send, count, dtype, peer), "send");
}

static void call(const struct self *self, const struct point *point)
{
    const struct ubccl_comm *comm = self->comm;
    const void *send = self->send;
    void *recv = self->recv;
    size_t count = point->count, chunk = point->chunk;
    int32_t dtype = point->element == FLOAT32 ? UBCCL_F32 : UBCCL_BF16;
    switch (point->kind) {
    case ALL_REDUCE: check(ubccl_comm_all_reduce(comm, send, recv, count, dtype, UBCCL_SUM), "all-reduce"); break;
    case ALL_REDUCE_IN_PLACE: check(ubccl_comm_all_reduce(comm, recv, recv, count, dtype, UBCCL_SUM), "all-reduce"); break;
    case ALL_GATHER: check(ubccl_comm_all_gather(comm, send, recv, chunk, dtype), "all-gather"); break;
    case REDUCE_SCATTER:
        check(ubccl_comm_reduce_scatter(comm, send, recv, chunk, dtype, UBCCL_SUM), "reduce-scatter");
        break;
    case BROADCAST: check(ubccl_comm_broadcast(comm, recv, recv, count, dtype, 0), "broadcast"); break;
    case ALL_TO_ALL: check(ubccl_comm_all_to_all(comm, send, recv, chunk, dtype), "all-to-all"); break;
    case BARRIER: check(ubccl_comm_barrier(comm), "barrier"); break;
    case PING_PONG:
        if (self->rank < 2)
            ping_pong(self, count, dtype);
        break;
    default: die("no such operation", "");
    }
}

static void barrier(const struct self *self) { check(ubccl_comm_barrier(self->comm), "barrier"); }

/* Rank 0's value, on every rank. A barrier must lie between two decisions. */
static int decide(const struct self *self, double value)
{
    if (self->rank == 0)
        atomic_store(&self->board->decision, (int)value);
    barrier(self);
    return atomic_load(&self->board->decision);
}

/* ---- measuring ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Whether a barrier precedes each timed call. */
static int is_in_step(const struct self *self, const struct point *point)
{
    return point->kind == BROADCAST || self->options->rewrite;
}

static void print(const struct self *self, const struct point *point, const double *sorted, int calls, double wall, int ok)
{
    const struct options *options = self->options;
    const struct operation *operation = &OPERATIONS[point->kind];
    double p50 = sorted[calls / 2], rate = p50 > 0 ? (double)real_bytes(point) / p50 * 1e-3 : 0;
    char average[32] = "null";
    if (!is_in_step(self, point))
        snprintf(average, sizeof average, "%.3f", wall);
    printf("{\"peer\":\"ubccl\",\"transport\":\"%s\",\"op\":\"%s\",\"inplace\":%d,\"dtype\":\"%s\","
           "\"bytes\":%zu,\"real_bytes\":%zu,\"ranks\":%d,\"iters\":%d,\"p50_us\":%.3f,\"min_us\":%.3f,"
           "\"p99_us\":%.3f,\"avg_us\":%s,\"algbw_GBps\":%.4f,\"busbw_GBps\":%.4f,\"sync\":\"%s\","
           "\"pin\":%d,\"registered\":%d,\"rewrite\":%d,\"rep\":%d,\"ok\":%d,\"note\":\"%s\"}\n",
           options->transport, operation->name, operation->in_place, ELEMENT_NAMES[point->element], point->bytes,
           real_bytes(point), options->ranks, calls, p50, sorted[0], sorted[(long)calls * 99 / 100], average, rate,
           rate * bus_factor(point), is_in_step(self, point) ? "barrier" : "none", options->pin, options->registered,
           options->rewrite, options->rep, ok, options->note);
    fflush(stdout);
}

static void report(const struct self *self, const struct point *point, int calls)
{
    struct board *board = self->board;
    double *slowest = board->call_us; /* rank 0's own times, no longer needed */
    double wall = 0;
    int ok = 1;
    for (int rank = 0; rank < self->options->ranks; rank++) {
        const double *times = board->call_us + (size_t)rank * MAX_CALLS;
        for (int i = 0; i < calls; i++)
            slowest[i] = times[i] > slowest[i] ? times[i] : slowest[i];
        wall = board->rank[rank].wall_us > wall ? board->rank[rank].wall_us : wall;
        ok &= board->rank[rank].ok;
    }
    qsort(slowest, (size_t)calls, sizeof *slowest, ascending);
    print(self, point, slowest, calls, wall, ok);
}

/* The time of a call as this rank sees it, for planning. */
static double estimate_us(const struct self *self, const struct point *point, int calls)
{
    barrier(self);
    double begin = now_us();
    for (int i = 0; i < calls; i++)
        call(self, point);
    barrier(self);
    return (now_us() - begin) / calls;
}

static double warm_calls(const struct options *options, double call_us)
{
    double most = 1e6 / call_us;
    double calls = options->warm < most ? options->warm : most;
    return calls < 1 ? 1 : calls;
}

static double timed_calls(const struct options *options, double call_us)
{
    double calls = options->seconds * 1e6 / call_us, most = options->max_seconds * 1e6 / call_us;
    calls = calls < 20 ? 20 : calls > MAX_CALLS ? MAX_CALLS : calls;
    calls = calls > most ? most : calls;
    return calls < FEWEST_CALLS ? FEWEST_CALLS : calls;
}

/* Times `calls` calls into this rank's part of the board. */
static void time_calls(const struct self *self, const struct point *point, int calls)
{
    double *times = self->board->call_us + (size_t)self->rank * MAX_CALLS;
    double share = point->kind != PING_PONG ? 1 : self->rank == 0 ? 0.5 : 0;
    int rewrite = self->options->rewrite, in_step = is_in_step(self, point);
    memset(times, 0, (size_t)calls * sizeof *times); /* no page fault in the loop */
    barrier(self);
    double begin = now_us();
    for (int i = 0; i < calls; i++) {
        if (rewrite)
            write_input(point, self->send, self->recv);
        if (in_step)
            barrier(self);
        double from = now_us();
        call(self, point);
        times[i] = now_us() - from;
    }
    self->board->rank[self->rank].wall_us = share * (now_us() - begin) / calls;
    if (share != 1)
        for (int i = 0; i < calls; i++)
            times[i] *= share;
}

/* Whether the results were right; rank 0 knows about all. */
static int measure(const struct self *self, const struct point *point)
{
    fill(point, self->send, self->recv);
    barrier(self);
    call(self, point);
    int ok = is_right(point, self->recv), in_place = point->kind == ALL_REDUCE_IN_PLACE;
    if (in_place)
        memset(self->recv, 0, point->bytes); /* or sums of sums would grow to infinity */

    double call_us = estimate_us(self, point, ESTIMATE_CALLS);
    call_us = estimate_us(self, point, decide(self, warm_calls(self->options, call_us)));
    int calls = decide(self, timed_calls(self->options, call_us));
    time_calls(self, point, calls);

    ok &= in_place && !self->options->rewrite ? is_zero(point, self->recv) : is_right(point, self->recv);
    self->board->rank[self->rank].ok = ok;
    barrier(self);
    if (self->rank == 0)
        report(self, point, calls);
    return ok;
}

/* ---- processes ---- */

static void *buffer(const struct self *self, size_t bytes)
{
    size_t whole = (bytes + 4095) / 4096 * 4096;
    void *memory = NULL;
    if (self->options->registered)
        check(ubccl_mem_alloc(self->comm, whole, &memory), "registered memory");
    else if (!(memory = aligned_alloc(4096, whole)))
        die("no memory for a buffer", strerror(errno));
    memset(memory, 0, whole);
    return memory;
}

static void free_buffer(const struct self *self, void *memory)
{
    if (self->options->registered)
        check(ubccl_mem_free(self->comm, memory), "registered memory");
    else
        free(memory);
}

/* Rank 0 makes the rendezvous and writes its text into the pipe once for each other rank. */
static struct ubccl_comm *join(const struct options *options, int rank, const int pipe_ends[2])
{
    char text[UBCCL_RENDEZVOUS_TEXT_MAX] = "";
    struct ubccl_comm *comm;
    struct ubccl_config config;
    check(ubccl_config_init(&config), "config");
    if (rank == 0) {
        check(ubccl_rendezvous_create(&config.listener), "rendezvous");
        check(ubccl_rendezvous_text(config.listener, text, sizeof text), "rendezvous text");
        for (int other = 1; other < options->ranks; other++)
            if (write(pipe_ends[1], text, sizeof text) != (ssize_t)sizeof text)
                die("cannot pass the rendezvous on", strerror(errno));
    } else {
        close(pipe_ends[1]); /* so that the pipe ends if rank 0 dies */
        if (read(pipe_ends[0], text, sizeof text) != (ssize_t)sizeof text)
            die("rank 0 gave no rendezvous", "");
        config.rendezvous = text;
    }
    config.rank = (uint32_t)rank;
    config.ranks = (uint32_t)options->ranks;
    config.transport = options->transport;
    config.algorithm = options->algorithm;
    config.operation_timeout_s = 300;
    check(ubccl_comm_init(&config, &comm), "init");
    return comm;
}

static void pin_to_cpu(int rank)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)(rank % sysconf(_SC_NPROCESSORS_ONLN)), &set);
    if (sched_setaffinity(0, sizeof set, &set))
        die("cannot pin", strerror(errno));
}

/* After joining, like the peers' programs: what the library starts to serve it is not pinned. */
static int run_rank(const struct options *options, struct board *board, int rank, const int pipe_ends[2])
{
    struct self self = {.options = options, .board = board, .rank = rank};
    size_t most = 4 * (size_t)options->ranks; /* an element for each rank at least */
    int ok = 1;
    for (int i = 0; i < options->sizes; i++)
        most = options->bytes[i] > most ? options->bytes[i] : most;
    self.comm = join(options, rank, pipe_ends);
    if (options->pin)
        pin_to_cpu(rank);
    self.send = buffer(&self, most);
    self.recv = buffer(&self, most);
    for (int kind = 0; kind < KINDS; kind++) {
        int sizes = kind == BARRIER ? 1 : options->sizes;
        if (!options->wanted[kind] || (kind == PING_PONG && options->ranks < 2))
            continue;
        for (int i = 0; i < sizes; i++) {
            struct point point = point_of((enum kind)kind, options->element, rank, options->ranks, options->bytes[i]);
            ok &= measure(&self, &point);
        }
    }
    free_buffer(&self, self.send);
    free_buffer(&self, self.recv);
    check(ubccl_comm_destroy(self.comm), "destroy");
    return ok ? 0 : 1;
}

/* The worst exit code; once a rank fails, the others are ended. */
static int wait_for(pid_t *children, int ranks)
{
    int worst = 0, status;
    pid_t ended;
    while ((ended = wait(&status)) > 0) {
        int code = WIFEXITED(status) ? WEXITSTATUS(status) : 2;
        if (WIFSIGNALED(status) && worst < 2)
            fprintf(stderr, "ubccl_bench: process %d was ended by signal %d\n", (int)ended, WTERMSIG(status));
        for (int rank = 0; rank < ranks; rank++) {
            children[rank] = children[rank] == ended ? 0 : children[rank];
            if (children[rank] && code == 2 && worst < 2)
                kill(children[rank], SIGTERM);
        }
        worst = code > worst ? code : worst;
    }
    return worst;
}

int main(int argc, char **argv)
{
    static struct options options;
    pid_t children[MAX_RANKS], launcher = getpid();
    int pipe_ends[2];
    read_options(&options, argc, argv);
    size_t bytes = sizeof(struct board) + (size_t)options.ranks * MAX_CALLS * sizeof(double);
    struct board *board = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED || pipe(pipe_ends))
        die("cannot start", strerror(errno));
    for (int rank = 0; rank < options.ranks; rank++) {
        children[rank] = fork();
        if (children[rank] < 0) { /* ranks already there go with their launcher */
            die("cannot start a rank", strerror(errno));
        } else if (children[rank] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != launcher)
                return 2;
            return run_rank(&options, board, rank, pipe_ends);
        }
    }
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return wait_for(children, options.ranks);
}
