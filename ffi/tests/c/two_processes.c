/* two_processes.c - one rank of two that uses the whole C interface.
 *
 *   two_processes VERSION TRANSPORT          rank 0: prints the rendezvous text
 *   two_processes VERSION TRANSPORT TEXT     rank 1
 * Ends with 0 if everything was as the header says; otherwise says where it was not.
 */
#define _POSIX_C_SOURCE 200809L
#include "ubccl.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CHECK(truth)                                                                                        \
    do {                                                                                                    \
        if (!(truth)) {                                                                                     \
            fprintf(stderr, "line %d: not so: %s; last error: %s\n", __LINE__, #truth, ubccl_last_error()); \
            exit(1);                                                                                        \
        }                                                                                                   \
    } while (0)

/* A call that must be refused with this code and a text that has these words. */
#define REFUSED(call, code, words)                             \
    do {                                                       \
        CHECK((call) == (code));                               \
        CHECK(strstr(ubccl_last_error(), (words)) != NULL);    \
    } while (0)

enum { MOST = 300001 };
static float sent[MOST], got[MOST];
static int32_t whole[3];

static void texts_of_results(void)
{
    for (ubccl_result code = UBCCL_SUCCESS; code <= UBCCL_INTERNAL_ERROR; code++) {
        CHECK(*ubccl_result_string(code));
        for (ubccl_result other = UBCCL_SUCCESS; other < code; other++)
            CHECK(strcmp(ubccl_result_string(code), ubccl_result_string(other)) != 0);
    }
    CHECK(strcmp(ubccl_result_string(UBCCL_SUCCESS), "success") == 0);
    CHECK(strcmp(ubccl_result_string(-1), "unknown result code") == 0);
    CHECK(strcmp(ubccl_result_string(11), "unknown result code") == 0);
}

static void bad_starts_are_refused(void)
{
    struct ubccl_config config;
    struct ubccl_comm *untouched = (struct ubccl_comm *)&config, *comm = untouched;
    CHECK(strcmp(ubccl_last_error(), "") == 0);
    REFUSED(ubccl_config_init(NULL), UBCCL_INVALID_ARGUMENT, "config is null");
    REFUSED(ubccl_rendezvous_create(NULL), UBCCL_INVALID_ARGUMENT, "null");
    REFUSED(ubccl_rendezvous_text(NULL, NULL, 0), UBCCL_INVALID_ARGUMENT, "rendezvous is null");
    REFUSED(ubccl_comm_init(NULL, &comm), UBCCL_INVALID_ARGUMENT, "config is null");
    CHECK(ubccl_config_init(&config) == UBCCL_SUCCESS);
    CHECK(config.size == sizeof config && config.rank == 0 && config.ranks == 1);
    REFUSED(ubccl_comm_init(&config, NULL), UBCCL_INVALID_ARGUMENT, "null");
    config.ranks = 2;
    REFUSED(ubccl_comm_init(&config, &comm), UBCCL_INVALID_ARGUMENT, "rendezvous");
    config.rendezvous = "ubccl:9:nonsense";
    REFUSED(ubccl_comm_init(&config, &comm), UBCCL_INVALID_ARGUMENT, "version 1");
    config.rendezvous = "\xff";
    REFUSED(ubccl_comm_init(&config, &comm), UBCCL_INVALID_ARGUMENT, "UTF-8");
    config.rendezvous = NULL;
    config.transport = "pigeon";
    REFUSED(ubccl_comm_init(&config, &comm), UBCCL_INVALID_ARGUMENT, "pigeon");
    config.transport = NULL;
    config.algorithm = "guess";
    REFUSED(ubccl_comm_init(&config, &comm), UBCCL_INVALID_ARGUMENT, "guess");
    config.algorithm = NULL;
    config.engine = "strong";
    REFUSED(ubccl_comm_init(&config, &comm), UBCCL_INVALID_ARGUMENT, "unknown engine 'strong'; there is one");
    config.rank = 2;
    REFUSED(ubccl_comm_init(&config, &comm), UBCCL_INVALID_ARGUMENT, "rank 2");
    config.size--;
    REFUSED(ubccl_comm_init(&config, &comm), UBCCL_INVALID_ARGUMENT, "ubccl_config_init");
    CHECK(comm == untouched);
}

/* A rendezvous whose text does not fit, and that nobody used. */
static void an_unused_rendezvous(void)
{
    struct ubccl_rendezvous *rendezvous = NULL;
    char small[8] = "before", text[UBCCL_RENDEZVOUS_TEXT_MAX];
    CHECK(ubccl_rendezvous_create(&rendezvous) == UBCCL_SUCCESS && rendezvous);
    REFUSED(ubccl_rendezvous_text(rendezvous, small, sizeof small), UBCCL_INVALID_ARGUMENT, "bytes");
    CHECK(strcmp(small, "before") == 0);
    REFUSED(ubccl_rendezvous_text(rendezvous, NULL, 1000), UBCCL_INVALID_ARGUMENT, "bytes");
    CHECK(ubccl_rendezvous_text(rendezvous, text, sizeof text) == UBCCL_SUCCESS);
    REFUSED(ubccl_rendezvous_text(rendezvous, text, strlen(text)), UBCCL_INVALID_ARGUMENT, "bytes");
    CHECK(ubccl_rendezvous_text(rendezvous, text, strlen(text) + 1) == UBCCL_SUCCESS);
    ubccl_rendezvous_destroy(rendezvous);
    ubccl_rendezvous_destroy(NULL);
}

static int lowest_free_descriptor(void)
{
    int descriptor = dup(0);
    CHECK(descriptor >= 0 && close(descriptor) == 0);
    return descriptor;
}

/* Whether the rank or the place for the result is wrong: the listening socket must not stay behind. */
static void a_failed_start_uses_its_listener_up(void)
{
    struct ubccl_config config;
    struct ubccl_comm *comm = NULL;
    int free_before = lowest_free_descriptor();
    for (int is_without_place = 0; is_without_place < 2; is_without_place++) {
        CHECK(ubccl_config_init(&config) == UBCCL_SUCCESS);
        CHECK(ubccl_rendezvous_create(&config.listener) == UBCCL_SUCCESS);
        CHECK(lowest_free_descriptor() != free_before);
        config.rank = is_without_place ? 0 : 1;
        CHECK(ubccl_comm_init(&config, is_without_place ? NULL : &comm) == UBCCL_INVALID_ARGUMENT);
        CHECK(lowest_free_descriptor() == free_before);
    }
}

static struct ubccl_comm *join(const char *transport, const char *text)
{
    struct ubccl_config config;
    struct ubccl_comm *comm = NULL;
    char own[UBCCL_RENDEZVOUS_TEXT_MAX];
    CHECK(ubccl_config_init(&config) == UBCCL_SUCCESS);
    config.transport = transport;
    config.ranks = 2;
    config.operation_timeout_s = 60;
    if (text) {
        config.rank = 1;
        config.rendezvous = text;
    } else {
        CHECK(ubccl_rendezvous_create(&config.listener) == UBCCL_SUCCESS);
        CHECK(ubccl_rendezvous_text(config.listener, own, sizeof own) == UBCCL_SUCCESS);
        puts(own);
        fflush(stdout);
    }
    CHECK(ubccl_comm_init(&config, &comm) == UBCCL_SUCCESS && comm);
    return comm;
}

static float input(int rank, size_t i) { return (float)((i * 7 + (size_t)rank * 3) % 101); }

static void sums(struct ubccl_comm *comm, int rank, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sent[i] = input(rank, i);
        got[i] = -1;
    }
    CHECK(ubccl_comm_all_reduce(comm, sent, got, count, UBCCL_F32, UBCCL_SUM) == UBCCL_SUCCESS);
    for (size_t i = 0; i < count; i++)
        CHECK(got[i] == input(0, i) + input(1, i) && sent[i] == input(rank, i));
    CHECK(ubccl_comm_all_reduce(comm, sent, sent, count, UBCCL_F32, UBCCL_SUM) == UBCCL_SUCCESS);
    for (size_t i = 0; i < count; i++)
        CHECK(sent[i] == input(0, i) + input(1, i));
}

static void maxima(struct ubccl_comm *comm, int rank)
{
    int32_t mine[3] = {rank ? -5 : -7, rank ? 1 : INT32_MAX, rank ? INT32_MIN : 0};
    CHECK(ubccl_comm_all_reduce(comm, mine, whole, 3, UBCCL_I32, UBCCL_MAX) == UBCCL_SUCCESS);
    CHECK(whole[0] == -5 && whole[1] == INT32_MAX && whole[2] == 0);
}

/* Nothing is sent for a refused call, so ranks need not make the same ones. */
static void bad_calls_are_refused(struct ubccl_comm *comm)
{
    const int32_t dtypes[] = {12, -1, 99, 256 + UBCCL_F32}, ops[] = {-1, 99, 256};
    const size_t counts[] = {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / sizeof(float)};
    char words[40];
    REFUSED(ubccl_comm_rank(NULL, NULL, NULL), UBCCL_INVALID_ARGUMENT, "comm is null");
    REFUSED(ubccl_comm_abort(NULL), UBCCL_INVALID_ARGUMENT, "comm is null");
    REFUSED(ubccl_comm_destroy(NULL), UBCCL_INVALID_ARGUMENT, "comm is null");
    REFUSED(ubccl_comm_all_reduce(NULL, sent, got, 1, UBCCL_F32, UBCCL_SUM), UBCCL_INVALID_ARGUMENT, "comm is null");
    REFUSED(ubccl_comm_all_reduce(comm, NULL, got, 1, UBCCL_F32, UBCCL_SUM), UBCCL_INVALID_ARGUMENT, "input is null");
    REFUSED(ubccl_comm_all_reduce(comm, sent, NULL, 1, UBCCL_F32, UBCCL_SUM), UBCCL_INVALID_ARGUMENT, "output is null");
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        snprintf(words, sizeof words, "%d is no data type", (int)dtypes[i]);
        REFUSED(ubccl_comm_all_reduce(comm, sent, got, 1, dtypes[i], UBCCL_SUM), UBCCL_INVALID_ARGUMENT, words);
    }
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        snprintf(words, sizeof words, "%d is no reduction", (int)ops[i]);
        REFUSED(ubccl_comm_all_reduce(comm, sent, got, 1, UBCCL_F32, ops[i]), UBCCL_INVALID_ARGUMENT, words);
    }
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        REFUSED(ubccl_comm_all_reduce(comm, sent, got, counts[i], UBCCL_F32, UBCCL_SUM), UBCCL_INVALID_ARGUMENT, "too large");
}

int main(int argc, char **argv)
{
    const size_t counts[] = {0, 1, 3, 1000, MOST};
    uint32_t rank = 9, ranks = 9;
    if (argc < 3)
        return 2;
    alarm(100); /* whatever hangs ends */
    CHECK(ubccl_version() == (uint32_t)strtoul(argv[1], NULL, 10));
    texts_of_results();
    bad_starts_are_refused();
    an_unused_rendezvous();
    a_failed_start_uses_its_listener_up();

    struct ubccl_comm *comm = join(argv[2], argc > 3 ? argv[3] : NULL);
    CHECK(ubccl_comm_rank(comm, &rank, &ranks) == UBCCL_SUCCESS);
    CHECK(rank == (argc > 3 ? 1u : 0u) && ranks == 2);
    CHECK(ubccl_comm_rank(comm, NULL, NULL) == UBCCL_SUCCESS);
    bad_calls_are_refused(comm);
    CHECK(ubccl_comm_all_reduce(comm, NULL, NULL, 0, UBCCL_F32, UBCCL_SUM) == UBCCL_SUCCESS);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        sums(comm, (int)rank, counts[i]);
    maxima(comm, (int)rank);
    CHECK(ubccl_comm_destroy(comm) == UBCCL_SUCCESS);
    return 0;
}
