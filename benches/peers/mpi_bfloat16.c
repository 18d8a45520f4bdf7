/* mpi_bfloat16.c - times the sums of an MPI in bfloat16, as mpi_bench.c of the peers times them in float32.
 *
 *   mpiexec -n 2 mpi_bfloat16 --peer=mpich --transport=shm --ops=allreduce,reduce_scatter --sizes=8,65536 --time=0.3
 *           --max-time=4 --warm=20 --pin=1 --rep=N --note=TEXT
 *
 * MPI has no such type; MPICH and Intel MPI have MPIX_BFLOAT16. What only moves takes the same in any type and is left to
 * mpi_bench.c: the operations here are allreduce, allreduce_inplace, reduce_scatter. The protocol is mpi_bench.c's to the
 * letter: buffers, estimate, warm-up, calls back to back, the maximum over ranks for each call, and p50 over calls.
 */
#define _GNU_SOURCE
#include "operations.h"
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SIZES = 64, MAX_CALLS = 200000, FEWEST_CALLS = 3, ESTIMATE_CALLS = 3 };

static const enum kind SUMS[] = {ALL_REDUCE, ALL_REDUCE_IN_PLACE, REDUCE_SCATTER};

struct options {
    const char *peer, *transport, *note;
    char *ops, *sizes;
    double seconds, max_seconds;
    int pin, rep, warm;
};

struct self {
    struct options options;
    int rank, ranks;
    size_t most;
    void *send, *recv;
    double *call_us, *slowest_us;
};

_Noreturn static void die(const char *what, const char *detail)
{
    fprintf(stderr, "mpi_bfloat16: %s: %s\n", what, detail);
    MPI_Abort(MPI_COMM_WORLD, 2);
    exit(2);
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static void read_options(struct options *options, int argc, char **argv)
{
    static char ops[] = "allreduce,allreduce_inplace,reduce_scatter";
    static char sizes[] = "8,64,1024,8192,65536,524288,1048576,4194304,16777216,67108864";
    *options = (struct options){.peer = "mpi", .transport = "shm", .note = "", .ops = ops, .sizes = sizes,
                                .seconds = 0.3, .max_seconds = 4, .warm = 20};
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value)
            die("options are --key=value, not", argv[i]);
        *value++ = 0;
        if (!strcmp(argv[i], "--peer")) options->peer = value;
        else if (!strcmp(argv[i], "--transport")) options->transport = value;
        else if (!strcmp(argv[i], "--note")) options->note = value;
        else if (!strcmp(argv[i], "--ops")) options->ops = value;
        else if (!strcmp(argv[i], "--sizes")) options->sizes = value;
        else if (!strcmp(argv[i], "--time")) options->seconds = atof(value);
        else if (!strcmp(argv[i], "--max-time")) options->max_seconds = atof(value);
        else if (!strcmp(argv[i], "--pin")) options->pin = atoi(value);
        else if (!strcmp(argv[i], "--rep")) options->rep = atoi(value);
        else if (!strcmp(argv[i], "--warm")) options->warm = atoi(value);
        else die("unknown option (the file's first lines list them)", argv[i]);
    }
}

static int is_wanted(const struct options *options, enum kind kind)
{
    const char *name = OPERATIONS[kind].option;
    for (const char *at = options->ops; (at = strstr(at, name)); at++) {
        char end = at[strlen(name)];
        if ((at == options->ops || at[-1] == ',') && (end == ',' || !end))
            return 1;
    }
    return 0;
}

static void call(const struct self *self, const struct point *point)
{
    int count = (int)(point->kind == REDUCE_SCATTER ? point->chunk : point->count);
    const void *send = point->kind == ALL_REDUCE_IN_PLACE ? MPI_IN_PLACE : self->send;
    int result = point->kind == REDUCE_SCATTER
        ? MPI_Reduce_scatter_block(send, self->recv, count, MPIX_BFLOAT16, MPI_SUM, MPI_COMM_WORLD)
        : MPI_Allreduce(send, self->recv, count, MPIX_BFLOAT16, MPI_SUM, MPI_COMM_WORLD);
    if (result != MPI_SUCCESS)
        die(OPERATIONS[point->kind].option, "the call failed");
}

static int decide(int value)
{
    MPI_Bcast(&value, 1, MPI_INT, 0, MPI_COMM_WORLD);
    return value;
}

static double estimate_us(const struct self *self, const struct point *point, int calls)
{
    MPI_Barrier(MPI_COMM_WORLD);
    double begin = now_us();
    for (int i = 0; i < calls; i++)
        call(self, point);
    MPI_Barrier(MPI_COMM_WORLD);
    return (now_us() - begin) / calls;
}

static int warm_calls(const struct options *options, double call_us)
{
    double most = 1e6 / call_us, calls = options->warm < most ? options->warm : most;
    return calls < 1 ? 1 : (int)calls;
}

static int timed_calls(const struct options *options, double call_us)
{
    double calls = options->seconds * 1e6 / call_us, most = options->max_seconds * 1e6 / call_us;
    calls = calls < 20 ? 20 : calls > MAX_CALLS ? MAX_CALLS : calls;
    calls = calls > most ? most : calls;
    return calls < FEWEST_CALLS ? FEWEST_CALLS : (int)calls;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print(const struct self *self, const struct point *point, int calls, double wall_us, int ok)
{
    const struct options *options = &self->options;
    const struct operation *operation = &OPERATIONS[point->kind];
    const double *sorted = self->slowest_us;
    double p50 = sorted[calls / 2], rate = p50 > 0 ? (double)real_bytes(point) / p50 * 1e-3 : 0;
    printf("{\"peer\":\"%s\",\"transport\":\"%s\",\"op\":\"%s\",\"inplace\":%d,\"dtype\":\"%s\",\"bytes\":%zu,"
           "\"real_bytes\":%zu,\"ranks\":%d,\"iters\":%d,\"p50_us\":%.3f,\"min_us\":%.3f,\"p99_us\":%.3f,\"avg_us\":%.3f,"
           "\"algbw_GBps\":%.4f,\"busbw_GBps\":%.4f,\"sync\":\"none\",\"pin\":%d,\"rep\":%d,\"ok\":%d,\"note\":\"%s\"}\n",
           options->peer, options->transport, operation->name, operation->in_place, ELEMENT_NAMES[point->element],
           point->bytes, real_bytes(point), self->ranks, calls, p50, sorted[0], sorted[(long)calls * 99 / 100], wall_us,
           rate, rate * bus_factor(point), options->pin, options->rep, ok, options->note);
    fflush(stdout);
}

/* Whether the result was right, on rank 0. */
static int measure(const struct self *self, const struct point *point)
{
    fill(point, self->send, self->recv);
    MPI_Barrier(MPI_COMM_WORLD);
    call(self, point);
    int ok = is_right(point, self->recv), all_ok;
    MPI_Allreduce(&ok, &all_ok, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    if (point->kind == ALL_REDUCE_IN_PLACE)
        memset(self->recv, 0, self->most); /* or sums of sums would grow to infinity */

    double call_us = estimate_us(self, point, ESTIMATE_CALLS);
    call_us = estimate_us(self, point, decide(warm_calls(&self->options, call_us)));
    int calls = decide(timed_calls(&self->options, call_us));
    MPI_Barrier(MPI_COMM_WORLD);
    double begin = now_us();
    for (int i = 0; i < calls; i++) {
        double from = now_us();
        call(self, point);
        self->call_us[i] = now_us() - from;
    }
    double wall_us = (now_us() - begin) / calls, longest_us = 0;
    MPI_Reduce(self->call_us, self->slowest_us, calls, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    MPI_Reduce(&wall_us, &longest_us, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    if (self->rank == 0) {
        qsort(self->slowest_us, (size_t)calls, sizeof(double), ascending);
        print(self, point, calls, longest_us, all_ok);
    }
    return all_ok;
}

static void *memory(size_t bytes)
{
    size_t whole = (bytes + 4095) / 4096 * 4096;
    void *memory = aligned_alloc(4096, whole);
    if (!memory)
        die("buffer", "no memory");
    memset(memory, 0, whole);
    return memory;
}

static void pin_to_cpu(int rank)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)(rank % sysconf(_SC_NPROCESSORS_ONLN)), &set);
    if (sched_setaffinity(0, sizeof set, &set))
        die("--pin", "cannot pin");
}

int main(int argc, char **argv)
{
    static struct self self;
    size_t bytes[MAX_SIZES];
    int sizes = 0, ok = 1;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &self.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &self.ranks);
    read_options(&self.options, argc, argv);
    if (self.options.pin)
        pin_to_cpu(self.rank);
    self.most = 2 * (size_t)self.ranks; /* an element for each rank at least */
    for (char *item = strtok(self.options.sizes, ","); item && sizes < MAX_SIZES; item = strtok(NULL, ",")) {
        bytes[sizes] = (size_t)atoll(item);
        self.most = bytes[sizes] > self.most ? bytes[sizes] : self.most;
        sizes++;
    }
    self.send = memory(self.most);
    self.recv = memory(self.most);
    self.call_us = memory(MAX_CALLS * sizeof(double));
    self.slowest_us = memory(MAX_CALLS * sizeof(double));
    for (size_t kind = 0; kind < sizeof SUMS / sizeof *SUMS; kind++)
        for (int i = 0; i < sizes && is_wanted(&self.options, SUMS[kind]); i++) {
            struct point point = point_of(SUMS[kind], BFLOAT16, self.rank, self.ranks, bytes[i]);
            ok &= measure(&self, &point);
        }
    MPI_Finalize();
    return ok ? 0 : 1;
}
