/* Data-parallel training of a linear model over ubccl: examples/data_parallel.rs in C.
 *
 *   cargo build --release -p ubccl-ffi
 *   cc -std=c11 -Wall -O2 -Iinclude examples/data_parallel.c -Ltarget/release -lubccl \
 *      -Wl,-rpath,$PWD/target/release -o data_parallel
 *   ./data_parallel 3                              # starts 3 ranks by itself, 2 without the argument
 *   UBCCL_TRANSPORT=tcp ./data_parallel
 *
 * Under a launcher of your own, give every rank UBCCL_RANK, UBCCL_SIZE and one UBCCL_RENDEZVOUS.
 */
#define _POSIX_C_SOURCE 200809L
#include "ubccl.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(call)                                                                                                    \
    do {                                                                                                               \
        ubccl_result result_ = (call);                                                                                 \
        if (result_ != UBCCL_SUCCESS) {                                                                                \
            fprintf(stderr, "%s: %s: %s\n", #call, ubccl_result_string(result_), ubccl_last_error());                  \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { WEIGHTS = 3, EPOCHS = 60, MAX_RANKS = 64, BASE = 100, MORE = 20 };
static const float TRUE_WEIGHTS[WEIGHTS] = {3.0f, -2.0f, 0.5f};

/* A number in [-1, 1). */
static float next(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 23) - 1.0f;
}

/* One pass over this rank's samples, which are made anew each time: gradient[0..3] and, after it, the loss. */
static void pass(uint32_t rank, uint64_t samples, const float *weights, float share, float *gradient, float *loss) {
    uint32_t state = (rank + 1u) * 0x9e3779b9u;
    memset(gradient, 0, WEIGHTS * sizeof *gradient);
    *loss = 0.0f;
    for (uint64_t k = 0; k < samples; k++) {
        float input[WEIGHTS] = {next(&state), next(&state), 1.0f}, error = 0.0f;
        for (int i = 0; i < WEIGHTS; i++) error += input[i] * (weights[i] - TRUE_WEIGHTS[i]);
        for (int i = 0; i < WEIGHTS; i++) gradient[i] += share * 2.0f * error * input[i];
        *loss += share * error * error;
    }
}

static int train(const ubccl_config *config) {
    ubccl_comm *comm = NULL;
    CHECK(ubccl_comm_init(config, &comm));
    uint32_t rank = 0, ranks = 0;
    CHECK(ubccl_comm_rank(comm, &rank, &ranks));
    if (ranks > MAX_RANKS) return 1;

    uint64_t samples = BASE + MORE * rank, counts[MAX_RANKS], total = 0;
    CHECK(ubccl_comm_all_gather(comm, &samples, counts, 1, UBCCL_U64));
    for (uint32_t r = 0; r < ranks; r++) total += counts[r];
    /* Shards differ in length. With this factor the average over ranks is the mean over samples. */
    float share = (float)ranks / (float)total;

    float weights[WEIGHTS] = {0}, gradient[WEIGHTS], loss, mean_loss = 0.0f, first = 0.0f;
    if (rank == 0) memcpy(weights, (float[]){0.1f, 0.2f, 0.3f}, sizeof weights);
    CHECK(ubccl_comm_broadcast(comm, weights, weights, WEIGHTS, UBCCL_F32, 0));
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        pass(rank, samples, weights, share, gradient, &loss);
        CHECK(ubccl_comm_all_reduce(comm, gradient, gradient, WEIGHTS, UBCCL_F32, UBCCL_AVG));
        CHECK(ubccl_comm_all_reduce(comm, &loss, &mean_loss, 1, UBCCL_F32, UBCCL_AVG));
        for (int i = 0; i < WEIGHTS; i++) weights[i] -= 0.5f * gradient[i];
        if (epoch == 0) first = mean_loss;
    }
    CHECK(ubccl_comm_barrier(comm));

    float everybodys[MAX_RANKS][WEIGHTS];
    CHECK(ubccl_comm_all_gather(comm, weights, everybodys, WEIGHTS, UBCCL_F32));
    CHECK(ubccl_comm_destroy(comm));
    int is_wrong = !(mean_loss < first / 100.0f);
    for (uint32_t r = 0; r < ranks; r++) is_wrong |= memcmp(everybodys[r], weights, sizeof weights) != 0;
    if (is_wrong || rank == 0)
        printf("rank %u of %u, %llu samples in all: loss %.4f -> %.2e, weights %.3f %.3f %.3f: %s\n", rank, ranks,
               (unsigned long long)total, first, mean_loss, weights[0], weights[1], weights[2],
               is_wrong ? "WRONG" : "the same everywhere");
    return is_wrong;
}

int main(int argc, char **argv) {
    ubccl_config config;
    CHECK(ubccl_config_init(&config));
    if (getenv("UBCCL_RENDEZVOUS") != NULL) return train(&config); /* A launcher started us. */

    config.ranks = argc > 1 ? (uint32_t)atoi(argv[1]) : 2;
    char text[UBCCL_RENDEZVOUS_TEXT_MAX];
    CHECK(ubccl_rendezvous_create(&config.listener)); /* This process is rank 0. */
    CHECK(ubccl_rendezvous_text(config.listener, text, sizeof text));
    for (uint32_t rank = 1; rank < config.ranks; rank++) { /* Fork first: a communicator does not survive it. */
        pid_t child = fork();
        if (child < 0) return 1;
        if (child == 0) {
            config.rank = rank;
            config.listener = NULL; /* The parent's. */
            config.rendezvous = text;
            return train(&config);
        }
    }
    int is_wrong = train(&config);
    for (int status; wait(&status) > 0;) is_wrong |= status != 0;
    return is_wrong;
}
