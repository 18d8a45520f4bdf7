// wrapper.cpp - the C++17 wrapper: ranks are threads, handles free themselves, errors are exceptions.
//
//   wrapper TRANSPORT RANKS
#include "ubccl.hpp"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <numeric>
#include <thread>
#include <unistd.h>
#include <vector>

#define CHECK(truth)                                                                \
    do {                                                                            \
        if (!(truth)) {                                                             \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #truth); \
            std::exit(1);                                                           \
        }                                                                           \
    } while (0)

using ubccl::Communicator;
using ubccl::Op;

namespace {

// What the call throws.
template <typename Call> ubccl_result thrown(const char *words, Call call)
{
    try {
        call();
    } catch (const ubccl::Error &error) {
        CHECK(std::strstr(error.what(), words) != nullptr);
        return error.result();
    }
    return UBCCL_SUCCESS;
}

template <typename T> std::vector<T> of(std::size_t rank, std::size_t count)
{
    std::vector<T> values(count);
    for (std::size_t i = 0; i < count; i++)
        values[i] = static_cast<T>((i * 3 + rank * 5) % 7);
    return values;
}

template <typename T> void every_call(Communicator &comm, std::size_t n)
{
    const std::size_t ranks = comm.ranks(), rank = comm.rank(), next = (rank + 1) % ranks, last = (rank + ranks - 1) % ranks;
    const auto root = static_cast<std::uint32_t>(ranks - 1);
    const std::vector<T> mine = of<T>(rank, n * ranks);
    std::vector<T> one(n), whole(n * ranks), sum(n * ranks), all;
    std::vector<std::size_t> counts(ranks, n);
    for (std::size_t other = 0; other < ranks; other++) {
        const auto theirs = of<T>(other, n * ranks);
        for (std::size_t i = 0; i < n * ranks; i++)
            sum[i] = static_cast<T>(sum[i] + theirs[i]);
        all.insert(all.end(), theirs.begin(), theirs.begin() + static_cast<std::ptrdiff_t>(n));
    }
    const auto block = [n](const std::vector<T> &of_all, std::size_t k) {
        const auto begin = of_all.begin() + static_cast<std::ptrdiff_t>(k * n);
        return std::vector<T>(begin, begin + static_cast<std::ptrdiff_t>(n));
    };
    std::vector<T> exchanged;
    for (std::size_t other = 0; other < ranks; other++) {
        const auto theirs = block(of<T>(other, n * ranks), rank);
        exchanged.insert(exchanged.end(), theirs.begin(), theirs.end());
    }
    const auto clear = [&] { one.assign(n, T()), whole.assign(n * ranks, T()); };

    comm.all_reduce(mine.data(), whole.data(), n * ranks, Op::Sum);
    CHECK(whole == sum);
    clear(), comm.all_reduce_async(mine.data(), whole.data(), n * ranks, Op::Sum).wait();
    CHECK(whole == sum);
    clear(), comm.all_gather(mine.data(), whole.data(), n);
    CHECK(whole == all);
    clear(), comm.all_gather_async(mine.data(), whole.data(), n).wait();
    CHECK(whole == all);
    clear(), comm.all_gather_v(mine.data(), whole.data(), counts.data(), nullptr);
    CHECK(whole == all);
    clear(), comm.all_gather_v_async(mine.data(), whole.data(), counts.data(), nullptr).wait();
    CHECK(whole == all);
    clear(), comm.reduce_scatter(mine.data(), one.data(), n, Op::Sum);
    CHECK(one == block(sum, rank));
    clear(), comm.reduce_scatter_async(mine.data(), one.data(), n, Op::Sum).wait();
    CHECK(one == block(sum, rank));
    clear(), comm.reduce_scatter_v(mine.data(), one.data(), counts.data(), Op::Sum);
    CHECK(one == block(sum, rank));
    clear(), comm.reduce_scatter_v_async(mine.data(), one.data(), counts.data(), Op::Sum).wait();
    CHECK(one == block(sum, rank));
    clear(), comm.all_to_all(mine.data(), whole.data(), n);
    CHECK(whole == exchanged);
    clear(), comm.all_to_all_async(mine.data(), whole.data(), n).wait();
    CHECK(whole == exchanged);
    clear(), comm.all_to_all_v(mine.data(), counts.data(), nullptr, whole.data(), counts.data(), nullptr);
    CHECK(whole == exchanged);
    clear();
    comm.all_to_all_v_async(mine.data(), counts.data(), nullptr, whole.data(), counts.data(), nullptr).wait();
    CHECK(whole == exchanged);

    clear(), comm.broadcast(mine.data(), one.data(), n, root);
    CHECK(one == block(all, root));
    clear(), comm.broadcast_async(mine.data(), one.data(), n, root).wait();
    CHECK(one == block(all, root));
    clear(), comm.scatter(mine.data(), one.data(), n, root);
    CHECK(one == block(of<T>(root, n * ranks), rank));
    clear(), comm.scatter_async(mine.data(), one.data(), n, root).wait();
    CHECK(one == block(of<T>(root, n * ranks), rank));
    clear(), comm.scatter_v(mine.data(), counts.data(), nullptr, one.data(), n, root);
    CHECK(one == block(of<T>(root, n * ranks), rank));
    clear(), comm.scatter_v_async(mine.data(), counts.data(), nullptr, one.data(), n, root).wait();
    CHECK(one == block(of<T>(root, n * ranks), rank));
    const std::vector<T> nothing(n * ranks);
    clear(), comm.reduce(mine.data(), whole.data(), n * ranks, Op::Sum, root);
    CHECK(whole == (rank == root ? sum : nothing));
    clear(), comm.reduce_async(mine.data(), whole.data(), n * ranks, Op::Sum, root).wait();
    CHECK(whole == (rank == root ? sum : nothing));
    clear(), comm.gather(mine.data(), whole.data(), n, root);
    CHECK(whole == (rank == root ? all : nothing));
    clear(), comm.gather_async(mine.data(), whole.data(), n, root).wait();
    CHECK(whole == (rank == root ? all : nothing));
    clear(), comm.gather_v(mine.data(), n, whole.data(), counts.data(), nullptr, root);
    CHECK(whole == (rank == root ? all : nothing));
    clear(), comm.gather_v_async(mine.data(), n, whole.data(), counts.data(), nullptr, root).wait();
    CHECK(whole == (rank == root ? all : nothing));

    const auto to = static_cast<std::uint32_t>(next), from = static_cast<std::uint32_t>(last);
    clear(), comm.send_receive(mine.data(), one.data(), n, to, from);
    CHECK(one == block(all, last));
    clear(), comm.send_receive_async(mine.data(), one.data(), n, to, from).wait();
    CHECK(one == block(all, last));
    if (ranks > 1) {
        auto receiving = (clear(), comm.receive_async(one.data(), n, from));
        comm.send(mine.data(), n, to);
        while (!receiving.wait_for(std::chrono::seconds(1))) {
        }
        CHECK(receiving.test() && one == block(all, last));
        clear();
        auto sending = comm.send_async(mine.data(), n, to);
        comm.receive(one.data(), n, from);
        sending = comm.barrier_async(); // the one before is waited for and freed
        CHECK(one == block(all, last));
    } else {
        comm.barrier_async().wait();
    }
    comm.barrier();

    auto group = comm.group();
    std::vector<T> got(n), gathered(n * ranks);
    group.send(mine.data(), n, to);
    group.receive(got.data(), n, from);
    group.all_reduce(mine.data(), whole.data(), n * ranks, Op::Sum);
    group.all_gather(mine.data(), gathered.data(), n);
    group.run();
    CHECK(got == block(all, last) && whole == sum && gathered == all);
    group = comm.group();
    group.send(mine.data(), n, to);
    group.receive(one.data(), n, from);
    group.issue().wait();
    CHECK(one == block(all, last));
    clear();
    auto tagged = comm.receive_tagged_async(one.data(), n, UBCCL_ANY_SOURCE, 3);
    auto sent = comm.send_tagged_async(mine.data(), n, to, 4);
    comm.send_tagged(mine.data(), n, to, 3);
    CHECK(tagged.source() == last && one == block(all, last));
    CHECK(comm.receive_tagged(got.data(), n, from, 4) == last);
    sent.wait();

    ubccl::Prepared prepared(comm.get(), ubccl_comm_all_reduce_prepare, mine.data(), whole.data(), n * ranks,
                             ubccl::DataType<T>::code, UBCCL_SUM);
    for (int round = 0; round < 3; round++) {
        clear(), prepared.start();
        if (round == 1)
            prepared.wait();
        while (!prepared.test() && !prepared.wait_for(std::chrono::seconds(1))) {
        }
        CHECK(whole == sum);
    }
    comm.barrier();
}

void be(std::uint32_t rank, std::uint32_t ranks, const std::string &transport, std::promise<std::string> *told,
        std::shared_future<std::string> text)
{
    ubccl::Config config(rank, ranks);
    if (rank == 0) {
        auto meeting = ubccl::Rendezvous::create();
        told->set_value(meeting.text());
        config.listener(std::move(meeting));
    } else {
        config.rendezvous(text.get());
    }
    Communicator comm(config.transport(transport).operation_timeout(std::chrono::seconds(60)));
    CHECK(comm.rank() == rank && comm.ranks() == ranks && comm.transport() == transport);
    comm.set_operation_timeout(std::chrono::seconds(50));
    every_call<float>(comm, 5);
    every_call<std::int64_t>(comm, 3001);
    every_call<std::uint8_t>(comm, 0);
    comm.check_async();
    CHECK(ranks == 1 || comm.counters().total.messages_sent > 0);

    Communicator half = comm.split(static_cast<int>(rank % 2), 0), none = comm.split(UBCCL_NO_COLOUR, 0);
    CHECK(half && !none && half.ranks() == (ranks + 1 - rank % 2) / 2);
    half.close();
    comm.duplicate().barrier();
    const std::vector<std::uint32_t> last = {ranks - 1};
    CHECK(static_cast<bool>(comm.split_ranks(last.data(), last.size())) == (rank == ranks - 1));
    float one = 1, scaled = 0;
    const auto doubled = ubccl::MadeOp::premul_sum(2);
    comm.all_reduce(&one, &scaled, 1, doubled.op());
    CHECK(scaled == 2 * static_cast<float>(ranks));
    const auto larger = ubccl::MadeOp::user("larger", true, [](const void *in, void *inout, std::size_t count, std::int32_t, void *) {
        for (std::size_t i = 0; i < count; i++)
            static_cast<float *>(inout)[i] = std::max(static_cast<float *>(inout)[i], static_cast<const float *>(in)[i]);
    });
    scaled = static_cast<float>(rank);
    comm.all_reduce(&scaled, &scaled, 1, larger.op());
    CHECK(scaled == static_cast<float>(ranks - 1));

    CHECK(thrown("input is null", [&] { comm.all_reduce<float>(nullptr, &one, 1, Op::Sum); }) == UBCCL_INVALID_ARGUMENT);
    CHECK(thrown("not defined for f32", [&] { comm.all_reduce(&one, &one, 1, Op::Xor); }) == UBCCL_INVALID_ARGUMENT);
    Communicator moved(std::move(comm));
    CHECK(thrown("comm is null", [&] { comm.barrier(); }) == UBCCL_INVALID_ARGUMENT); // NOLINT: that is the test
    moved.barrier();
    if (rank == 0) {
        moved.close();
        CHECK(thrown("closed", [&] { moved.barrier(); }) == UBCCL_CLOSED);
    } // the others leave by their destructors
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    alarm(250);
    const auto ranks = static_cast<std::uint32_t>(std::atoi(argv[2]));
    std::promise<std::string> told;
    const auto text = told.get_future().share();
    std::vector<std::thread> threads;
    for (std::uint32_t rank = 0; rank < ranks; rank++)
        threads.emplace_back(be, rank, ranks, std::string(argv[1]), &told, text);
    for (auto &thread : threads)
        thread.join();
    CHECK(ubccl_handle_count() == 0);
    CHECK(thrown("no rendezvous", [] { Communicator(ubccl::Config(0, 2)); }) == UBCCL_INVALID_ARGUMENT);
    return 0;
}
