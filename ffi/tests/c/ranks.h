/* ranks.h - runs a function as every rank of a communicator: as forked processes, or over `threads` as threads. */
#ifndef RANKS_H
#define RANKS_H

#include "ubccl.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(truth)                                                                                          \
    do {                                                                                                      \
        if (!(truth)) {                                                                                       \
            fprintf(stderr, "%s:%d: not so: %s; last error: %s\n", __FILE__, __LINE__, #truth, ubccl_last_error()); \
            exit(1);                                                                                          \
        }                                                                                                     \
    } while (0)

#define OK(call) CHECK((call) == UBCCL_SUCCESS)

/* A call that must be refused with this code and a text that has these words. */
#define REFUSED(call, code, words)                          \
    do {                                                    \
        CHECK((call) == (code));                            \
        CHECK(strstr(ubccl_last_error(), (words)) != NULL); \
    } while (0)

enum { MOST_RANKS = 8 };

struct place {
    const char *transport;
    uint32_t rank, ranks;
    const int (*pipes)[2];
    void (*body)(struct ubccl_comm *comm, uint32_t rank, uint32_t ranks);
};

/* Joins; rank 0 tells the others through their pipes where to meet. */
static inline struct ubccl_comm *join(const struct place *place)
{
    char text[UBCCL_RENDEZVOUS_TEXT_MAX] = "";
    struct ubccl_config config;
    struct ubccl_comm *comm = NULL;
    OK(ubccl_config_init(&config));
    config.transport = place->transport;
    config.rank = place->rank;
    config.ranks = place->ranks;
    config.operation_timeout_s = 60;
    if (place->rank == 0) {
        OK(ubccl_rendezvous_create(&config.listener));
        OK(ubccl_rendezvous_text(config.listener, text, sizeof text));
        for (uint32_t other = 1; other < place->ranks; other++)
            CHECK(write(place->pipes[other][1], text, sizeof text) == (ssize_t)sizeof text);
    } else {
        CHECK(read(place->pipes[place->rank][0], text, sizeof text) == (ssize_t)sizeof text);
        config.rendezvous = text;
    }
    OK(ubccl_comm_init(&config, &comm));
    return comm;
}

static inline void *be(void *argument)
{
    const struct place *place = (const struct place *)argument;
    struct ubccl_comm *comm = join(place);
    place->body(comm, place->rank, place->ranks);
    return NULL;
}

/* Every rank runs `body`, which destroys its communicator; no handle may be left over. */
static inline void run_ranks(const char *transport, uint32_t ranks,
                             void (*body)(struct ubccl_comm *, uint32_t, uint32_t))
{
    int pipes[MOST_RANKS][2];
    struct place places[MOST_RANKS];
    pthread_t threads[MOST_RANKS];
    pid_t children[MOST_RANKS];
    int in_threads = strcmp(transport, "threads") == 0, failures = 0;
    CHECK(ranks >= 1 && ranks <= MOST_RANKS);
    for (uint32_t rank = 0; rank < ranks; rank++) {
        places[rank] = (struct place){transport, rank, ranks, (const int(*)[2])pipes, body};
        CHECK(pipe(pipes[rank]) == 0);
    }
    for (uint32_t rank = 0; rank < ranks; rank++) {
        if (in_threads) {
            CHECK(pthread_create(&threads[rank], NULL, be, &places[rank]) == 0);
            continue;
        }
        children[rank] = fork();
        CHECK(children[rank] >= 0);
        if (children[rank] == 0) {
            alarm(240); /* whatever hangs ends */
            be(&places[rank]);
            CHECK(ubccl_handle_count() == 0);
            exit(0);
        }
    }
    for (uint32_t rank = 0; rank < ranks; rank++) {
        int status = 0;
        if (in_threads)
            CHECK(pthread_join(threads[rank], NULL) == 0);
        else if (waitpid(children[rank], &status, 0) != children[rank] || status != 0)
            failures++;
    }
    for (uint32_t rank = 0; rank < ranks; rank++)
        CHECK(close(pipes[rank][0]) == 0 && close(pipes[rank][1]) == 0);
    CHECK(failures == 0);
    CHECK(ubccl_handle_count() == 0);
}

#endif
