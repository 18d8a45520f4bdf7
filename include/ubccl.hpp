// ubccl.hpp - the C interface of ubccl as C++17: handles that free themselves, errors as exceptions, element types by
// template. Thin: each function is the one of ubccl.h with the same name, where shapes, order and errors are written.
//
//   auto meeting = ubccl::Rendezvous::create();          // rank 0; meeting.text() goes to the others
//   ubccl::Communicator comm(ubccl::Config(0, 2).listener(std::move(meeting)));
//   comm.all_reduce(send.data(), recv.data(), send.size(), ubccl::Op::Sum);
//   comm.close();                                        // reports; the destructor can't
#ifndef UBCCL_HPP
#define UBCCL_HPP

#include "ubccl.h"
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace ubccl {

/// A call that failed: its code, and whom and what it is about.
class Error : public std::runtime_error {
public:
    explicit Error(ubccl_result result) : std::runtime_error(ubccl_last_error()), result_(result)
    {
        ubccl_error_info info = {};
        info.size = sizeof info;
        if (ubccl_last_error_info(&info) == UBCCL_SUCCESS && info.has_cause) {
            has_cause_ = true;
            rank_ = info.rank;
            pid_ = info.pid;
            sequence_ = info.sequence;
            host_ = info.host;
            operation_ = info.operation;
        }
    }

    /// `UBCCL_TIMEOUT` and the like.
    ubccl_result result() const noexcept { return result_; }
    /// Whether it is the cause that ended a communicator; only then the rest says something.
    bool has_cause() const noexcept { return has_cause_; }
    std::uint32_t rank() const noexcept { return rank_; }
    std::uint32_t pid() const noexcept { return pid_; }
    std::uint64_t sequence() const noexcept { return sequence_; }
    const std::string &host() const noexcept { return host_; }
    const std::string &operation() const noexcept { return operation_; }

private:
    ubccl_result result_;
    bool has_cause_ = false;
    std::uint32_t rank_ = 0, pid_ = 0;
    std::uint64_t sequence_ = 0;
    std::string host_, operation_;
};

/// Throws if a call failed.
inline void check(ubccl_result result)
{
    if (result != UBCCL_SUCCESS)
        throw Error(result);
}

/// How elements are combined. Operations of a user's own are numbers too: `static_cast<Op>(code)`.
enum class Op : std::int32_t {
    Sum = UBCCL_SUM,
    Prod = UBCCL_PROD,
    Max = UBCCL_MAX,
    Min = UBCCL_MIN,
    Avg = UBCCL_AVG,
    And = UBCCL_AND,
    Or = UBCCL_OR,
    Xor = UBCCL_XOR,
};

/// The number of a C++ type's element type. Specialise it for your 16-bit and 8-bit floats.
template <typename T> struct DataType;
template <> struct DataType<std::int8_t> { static constexpr std::int32_t code = UBCCL_I8; };
template <> struct DataType<std::uint8_t> { static constexpr std::int32_t code = UBCCL_U8; };
template <> struct DataType<std::int16_t> { static constexpr std::int32_t code = UBCCL_I16; };
template <> struct DataType<std::uint16_t> { static constexpr std::int32_t code = UBCCL_U16; };
template <> struct DataType<std::int32_t> { static constexpr std::int32_t code = UBCCL_I32; };
template <> struct DataType<std::uint32_t> { static constexpr std::int32_t code = UBCCL_U32; };
template <> struct DataType<std::int64_t> { static constexpr std::int32_t code = UBCCL_I64; };
template <> struct DataType<std::uint64_t> { static constexpr std::int32_t code = UBCCL_U64; };
template <> struct DataType<float> { static constexpr std::int32_t code = UBCCL_F32; };
template <> struct DataType<double> { static constexpr std::int32_t code = UBCCL_F64; };

/// A handle that is moved, never copied, and given to `Free` at the end; what that returns is lost.
template <typename H, ubccl_result (*Free)(H *)> class Handle {
public:
    Handle() = default;
    explicit Handle(H *raw) noexcept : raw_(raw) {}
    Handle(Handle &&other) noexcept : raw_(other.release()) {}
    Handle &operator=(Handle &&other) noexcept
    {
        if (this != &other) {
            reset();
            raw_ = other.release();
        }
        return *this;
    }
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;
    ~Handle() { reset(); }

    H *get() const noexcept { return raw_; }
    H *release() noexcept { return std::exchange(raw_, nullptr); }

private:
    void reset() noexcept
    {
        if (raw_ != nullptr)
            static_cast<void>(Free(release()));
    }
    H *raw_ = nullptr;
};

/// Where ranks meet.
class Rendezvous {
public:
    static Rendezvous create()
    {
        ubccl_rendezvous *raw = nullptr;
        check(ubccl_rendezvous_create(&raw));
        return Rendezvous(raw);
    }
    std::string text() const
    {
        char text[UBCCL_RENDEZVOUS_TEXT_MAX];
        check(ubccl_rendezvous_text(handle_.get(), text, sizeof text));
        return text;
    }
    ubccl_rendezvous *release() noexcept { return handle_.release(); }

private:
    explicit Rendezvous(ubccl_rendezvous *raw) noexcept : handle_(raw) {}
    Handle<ubccl_rendezvous, ubccl_rendezvous_destroy> handle_;
};

/// How a communicator is made.
class Config {
public:
    Config(std::uint32_t rank, std::uint32_t ranks) : rank_(rank), ranks_(ranks) {}
    Config &listener(Rendezvous rendezvous)
    {
        listener_ = Handle<ubccl_rendezvous, ubccl_rendezvous_destroy>(rendezvous.release());
        return *this;
    }
    Config &rendezvous(std::string text) { return rendezvous_ = std::move(text), *this; }
    Config &transport(std::string name) { return transport_ = std::move(name), *this; }
    Config &algorithm(std::string name) { return algorithm_ = std::move(name), *this; }
    Config &engine(std::string name) { return engine_ = std::move(name), *this; }
    Config &operation_timeout(std::chrono::seconds timeout)
    {
        return operation_timeout_s_ = static_cast<std::uint32_t>(timeout.count()), *this;
    }

private:
    friend class Communicator;
    ubccl_comm *join()
    {
        ubccl_config config;
        check(ubccl_config_init(&config));
        config.rank = rank_;
        config.ranks = ranks_;
        config.operation_timeout_s = operation_timeout_s_;
        config.rendezvous = rendezvous_.empty() ? nullptr : rendezvous_.c_str();
        config.transport = transport_.empty() ? nullptr : transport_.c_str();
        config.algorithm = algorithm_.empty() ? nullptr : algorithm_.c_str();
        config.engine = engine_.empty() ? nullptr : engine_.c_str();
        config.listener = listener_.release(); // used up, whatever comes
        ubccl_comm *comm = nullptr;
        check(ubccl_comm_init(&config, &comm));
        return comm;
    }

    std::uint32_t rank_, ranks_, operation_timeout_s_ = 0;
    std::string rendezvous_, transport_, algorithm_, engine_;
    Handle<ubccl_rendezvous, ubccl_rendezvous_destroy> listener_;
};

/// An operation that was issued. The destructor waits for it, so that its buffers may go after it.
class Work {
public:
    explicit Work(ubccl_work *raw) noexcept : handle_(raw) {}
    bool test()
    {
        bool done = false;
        check(ubccl_work_test(handle_.get(), &done));
        return done;
    }
    void wait() { check(ubccl_work_wait(handle_.get())); }
    /// Waits for a receive with a tag, and tells whose message it got.
    std::uint32_t source()
    {
        std::uint32_t source = 0;
        check(ubccl_work_source(handle_.get(), &source));
        return source;
    }
    bool wait_for(std::chrono::milliseconds timeout)
    {
        bool done = false;
        check(ubccl_work_wait_timeout(handle_.get(), static_cast<std::uint64_t>(timeout.count()), &done));
        return done;
    }

private:
    Handle<ubccl_work, ubccl_work_free> handle_;
};

/// A call that was prepared, to be started many times: `Prepared p(comm.get(), ubccl_comm_all_reduce_prepare, send, …)`
/// takes the arguments of the C function between the communicator and the handle. The destructor waits for it.
class Prepared {
public:
    template <typename... Parameters, typename... Arguments>
    Prepared(const ubccl_comm *comm, ubccl_result (*prepare)(const ubccl_comm *, Parameters...), Arguments... arguments)
    {
        ubccl_prepared *raw = nullptr;
        check(prepare(comm, arguments..., &raw));
        handle_ = Handle<ubccl_prepared, ubccl_prepared_free>(raw);
    }
    void start() { check(ubccl_prepared_start(handle_.get())); }
    bool test()
    {
        bool done = false;
        check(ubccl_prepared_test(handle_.get(), &done));
        return done;
    }
    void wait() { check(ubccl_prepared_wait(handle_.get())); }
    bool wait_for(std::chrono::milliseconds timeout)
    {
        bool done = false;
        check(ubccl_prepared_wait_timeout(handle_.get(), static_cast<std::uint64_t>(timeout.count()), &done));
        return done;
    }

private:
    Handle<ubccl_prepared, ubccl_prepared_free> handle_;
};

/// Calls that are collected and run at once. Dropped without having run, nothing was sent.
class Group {
public:
    explicit Group(ubccl_group *raw) noexcept : handle_(raw) {}
    void run() { check(ubccl_group_run(handle_.release())); }
    [[nodiscard]] Work issue()
    {
        ubccl_work *work = nullptr;
        check(ubccl_group_issue(handle_.release(), &work));
        return Work(work);
    }

    template <typename T>
    void all_reduce(const T *send, T *recv, std::size_t count, Op op)
    {
        check(ubccl_group_all_reduce(handle_.get(), send, recv, count, DataType<T>::code,
                                     static_cast<std::int32_t>(op)));
    }
    template <typename T>
    void all_gather(const T *send, T *recv, std::size_t count)
    {
        check(ubccl_group_all_gather(handle_.get(), send, recv, count, DataType<T>::code));
    }
    template <typename T>
    void reduce_scatter(const T *send, T *recv, std::size_t count, Op op)
    {
        check(ubccl_group_reduce_scatter(handle_.get(), send, recv, count, DataType<T>::code,
                                         static_cast<std::int32_t>(op)));
    }
    template <typename T>
    void all_to_all(const T *send, T *recv, std::size_t count)
    {
        check(ubccl_group_all_to_all(handle_.get(), send, recv, count, DataType<T>::code));
    }
    template <typename T>
    void broadcast(const T *send, T *recv, std::size_t count, std::uint32_t root)
    {
        check(ubccl_group_broadcast(handle_.get(), send, recv, count, DataType<T>::code, root));
    }
    template <typename T>
    void reduce(const T *send, T *recv, std::size_t count, Op op, std::uint32_t root)
    {
        check(ubccl_group_reduce(handle_.get(), send, recv, count, DataType<T>::code, static_cast<std::int32_t>(op),
                                 root));
    }
    template <typename T>
    void gather(const T *send, T *recv, std::size_t count, std::uint32_t root)
    {
        check(ubccl_group_gather(handle_.get(), send, recv, count, DataType<T>::code, root));
    }
    template <typename T>
    void scatter(const T *send, T *recv, std::size_t count, std::uint32_t root)
    {
        check(ubccl_group_scatter(handle_.get(), send, recv, count, DataType<T>::code, root));
    }
    template <typename T>
    void all_gather_v(const T *send, T *recv, const std::size_t *counts, const std::size_t *displacements)
    {
        check(ubccl_group_all_gather_v(handle_.get(), send, recv, counts, displacements, DataType<T>::code));
    }
    template <typename T>
    void reduce_scatter_v(const T *send, T *recv, const std::size_t *counts, Op op)
    {
        check(ubccl_group_reduce_scatter_v(handle_.get(), send, recv, counts, DataType<T>::code,
                                           static_cast<std::int32_t>(op)));
    }
    template <typename T>
    void gather_v(const T *send, std::size_t count, T *recv, const std::size_t *counts,
                  const std::size_t *displacements, std::uint32_t root)
    {
        check(ubccl_group_gather_v(handle_.get(), send, count, recv, counts, displacements, DataType<T>::code, root));
    }
    template <typename T>
    void scatter_v(const T *send, const std::size_t *counts, const std::size_t *displacements, T *recv,
                   std::size_t count, std::uint32_t root)
    {
        check(ubccl_group_scatter_v(handle_.get(), send, counts, displacements, recv, count, DataType<T>::code,
                                    root));
    }
    template <typename T>
    void all_to_all_v(const T *send, const std::size_t *send_counts, const std::size_t *send_displacements, T *recv,
                      const std::size_t *recv_counts, const std::size_t *recv_displacements)
    {
        check(ubccl_group_all_to_all_v(handle_.get(), send, send_counts, send_displacements, recv, recv_counts,
                                       recv_displacements, DataType<T>::code));
    }
    template <typename T>
    void send(const T *send, std::size_t count, std::uint32_t peer)
    {
        check(ubccl_group_send(handle_.get(), send, count, DataType<T>::code, peer));
    }
    template <typename T>
    void receive(T *recv, std::size_t count, std::uint32_t peer)
    {
        check(ubccl_group_receive(handle_.get(), recv, count, DataType<T>::code, peer));
    }

private:
    Handle<ubccl_group, ubccl_group_destroy> handle_;
};

/// An operation of one's own. Destroyed with its calls still under way, it is freed when they are done.
class MadeOp {
public:
    static MadeOp premul_sum(double scalar)
    {
        std::int32_t code = 0;
        check(ubccl_op_create_premul_sum(scalar, &code));
        return MadeOp(code);
    }
    static MadeOp user(const char *name, bool is_commutative, ubccl_user_function function, void *context = nullptr)
    {
        std::int32_t code = 0;
        check(ubccl_op_create_user(name, is_commutative, function, context, &code));
        return MadeOp(code);
    }
    MadeOp(MadeOp &&other) noexcept : code_(std::exchange(other.code_, -1)) {}
    MadeOp(const MadeOp &) = delete;
    MadeOp &operator=(const MadeOp &) = delete;
    MadeOp &operator=(MadeOp &&) = delete;
    ~MadeOp()
    {
        if (code_ >= 0)
            static_cast<void>(ubccl_op_destroy(code_));
    }
    Op op() const noexcept { return static_cast<Op>(code_); }

private:
    explicit MadeOp(std::int32_t code) noexcept : code_(code) {}
    std::int32_t code_;
};

/// A communicator. The destructor leaves; call `close` to learn whether all went well.
class Communicator {
public:
    /// Uses the configuration's listener up.
    explicit Communicator(Config &config) : handle_(config.join()) {}
    explicit Communicator(Config &&config) : Communicator(config) {}

    ubccl_comm *get() const noexcept { return handle_.get(); }
    /// Whether it is one: a rank that is in no group of a split gets none.
    explicit operator bool() const noexcept { return get() != nullptr; }
    std::uint32_t rank() const { return place().first; }
    std::uint32_t ranks() const { return place().second; }
    std::string transport() const
    {
        char text[32];
        check(ubccl_comm_transport(get(), text, sizeof text));
        return text;
    }
    ubccl_counters counters() const
    {
        ubccl_counters counters = {};
        counters.size = sizeof counters;
        check(ubccl_comm_counters(get(), &counters));
        return counters;
    }
    /// Throws the first cause, if the communicator is poisoned.
    void check_async() const
    {
        ubccl_result result = UBCCL_SUCCESS;
        check(ubccl_comm_async_error(get(), &result));
        check(result);
    }
    void set_operation_timeout(std::chrono::milliseconds timeout)
    {
        check(ubccl_comm_set_operation_timeout(get(), static_cast<std::uint64_t>(timeout.count())));
    }
    void abort() { check(ubccl_comm_abort(get())); }
    void close() { check(ubccl_comm_close(get())); }

    [[nodiscard]] Communicator split(std::int32_t colour, std::int64_t key)
    {
        ubccl_comm *made = nullptr;
        check(ubccl_comm_split(get(), colour, key, &made));
        return Communicator(made);
    }
    [[nodiscard]] Communicator split_ranks(const std::uint32_t *ranks, std::size_t count)
    {
        ubccl_comm *made = nullptr;
        check(ubccl_comm_split_ranks(get(), ranks, count, &made));
        return Communicator(made);
    }
    [[nodiscard]] Group group()
    {
        ubccl_group *made = nullptr;
        check(ubccl_group_begin(get(), &made));
        return Group(made);
    }
    [[nodiscard]] Communicator duplicate()
    {
        ubccl_comm *made = nullptr;
        check(ubccl_comm_duplicate(get(), &made));
        return Communicator(made);
    }

    template <typename T>
    void all_reduce(const T *send, T *recv, std::size_t count, Op op)
    {
        check(ubccl_comm_all_reduce(get(), send, recv, count, dtype<T>, code(op)));
    }
    template <typename T>
    [[nodiscard]] Work all_reduce_async(const T *send, T *recv, std::size_t count, Op op)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_all_reduce_async(get(), send, recv, count, dtype<T>, code(op), &work));
        return Work(work);
    }
    template <typename T>
    void all_gather(const T *send, T *recv, std::size_t count)
    {
        check(ubccl_comm_all_gather(get(), send, recv, count, dtype<T>));
    }
    template <typename T>
    [[nodiscard]] Work all_gather_async(const T *send, T *recv, std::size_t count)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_all_gather_async(get(), send, recv, count, dtype<T>, &work));
        return Work(work);
    }
    template <typename T>
    void reduce_scatter(const T *send, T *recv, std::size_t count, Op op)
    {
        check(ubccl_comm_reduce_scatter(get(), send, recv, count, dtype<T>, code(op)));
    }
    template <typename T>
    [[nodiscard]] Work reduce_scatter_async(const T *send, T *recv, std::size_t count, Op op)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_reduce_scatter_async(get(), send, recv, count, dtype<T>, code(op), &work));
        return Work(work);
    }
    template <typename T>
    void all_to_all(const T *send, T *recv, std::size_t count)
    {
        check(ubccl_comm_all_to_all(get(), send, recv, count, dtype<T>));
    }
    template <typename T>
    [[nodiscard]] Work all_to_all_async(const T *send, T *recv, std::size_t count)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_all_to_all_async(get(), send, recv, count, dtype<T>, &work));
        return Work(work);
    }
    template <typename T>
    void broadcast(const T *send, T *recv, std::size_t count, std::uint32_t root)
    {
        check(ubccl_comm_broadcast(get(), send, recv, count, dtype<T>, root));
    }
    template <typename T>
    [[nodiscard]] Work broadcast_async(const T *send, T *recv, std::size_t count, std::uint32_t root)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_broadcast_async(get(), send, recv, count, dtype<T>, root, &work));
        return Work(work);
    }
    template <typename T>
    void reduce(const T *send, T *recv, std::size_t count, Op op, std::uint32_t root)
    {
        check(ubccl_comm_reduce(get(), send, recv, count, dtype<T>, code(op), root));
    }
    template <typename T>
    [[nodiscard]] Work reduce_async(const T *send, T *recv, std::size_t count, Op op, std::uint32_t root)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_reduce_async(get(), send, recv, count, dtype<T>, code(op), root, &work));
        return Work(work);
    }
    template <typename T>
    void gather(const T *send, T *recv, std::size_t count, std::uint32_t root)
    {
        check(ubccl_comm_gather(get(), send, recv, count, dtype<T>, root));
    }
    template <typename T>
    [[nodiscard]] Work gather_async(const T *send, T *recv, std::size_t count, std::uint32_t root)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_gather_async(get(), send, recv, count, dtype<T>, root, &work));
        return Work(work);
    }
    template <typename T>
    void scatter(const T *send, T *recv, std::size_t count, std::uint32_t root)
    {
        check(ubccl_comm_scatter(get(), send, recv, count, dtype<T>, root));
    }
    template <typename T>
    [[nodiscard]] Work scatter_async(const T *send, T *recv, std::size_t count, std::uint32_t root)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_scatter_async(get(), send, recv, count, dtype<T>, root, &work));
        return Work(work);
    }
    template <typename T>
    void all_gather_v(const T *send, T *recv, const std::size_t *counts, const std::size_t *displacements)
    {
        check(ubccl_comm_all_gather_v(get(), send, recv, counts, displacements, dtype<T>));
    }
    template <typename T>
    [[nodiscard]] Work all_gather_v_async(const T *send, T *recv, const std::size_t *counts,
                                          const std::size_t *displacements)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_all_gather_v_async(get(), send, recv, counts, displacements, dtype<T>, &work));
        return Work(work);
    }
    template <typename T>
    void reduce_scatter_v(const T *send, T *recv, const std::size_t *counts, Op op)
    {
        check(ubccl_comm_reduce_scatter_v(get(), send, recv, counts, dtype<T>, code(op)));
    }
    template <typename T>
    [[nodiscard]] Work reduce_scatter_v_async(const T *send, T *recv, const std::size_t *counts, Op op)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_reduce_scatter_v_async(get(), send, recv, counts, dtype<T>, code(op), &work));
        return Work(work);
    }
    template <typename T>
    void gather_v(const T *send, std::size_t count, T *recv, const std::size_t *counts,
                  const std::size_t *displacements, std::uint32_t root)
    {
        check(ubccl_comm_gather_v(get(), send, count, recv, counts, displacements, dtype<T>, root));
    }
    template <typename T>
    [[nodiscard]] Work gather_v_async(const T *send, std::size_t count, T *recv, const std::size_t *counts,
                                      const std::size_t *displacements, std::uint32_t root)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_gather_v_async(get(), send, count, recv, counts, displacements, dtype<T>, root, &work));
        return Work(work);
    }
    template <typename T>
    void scatter_v(const T *send, const std::size_t *counts, const std::size_t *displacements, T *recv,
                   std::size_t count, std::uint32_t root)
    {
        check(ubccl_comm_scatter_v(get(), send, counts, displacements, recv, count, dtype<T>, root));
    }
    template <typename T>
    [[nodiscard]] Work scatter_v_async(const T *send, const std::size_t *counts, const std::size_t *displacements,
                                       T *recv, std::size_t count, std::uint32_t root)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_scatter_v_async(get(), send, counts, displacements, recv, count, dtype<T>, root, &work));
        return Work(work);
    }
    template <typename T>
    void all_to_all_v(const T *send, const std::size_t *send_counts, const std::size_t *send_displacements, T *recv,
                      const std::size_t *recv_counts, const std::size_t *recv_displacements)
    {
        check(ubccl_comm_all_to_all_v(get(), send, send_counts, send_displacements, recv, recv_counts,
                                      recv_displacements, dtype<T>));
    }
    template <typename T>
    [[nodiscard]] Work all_to_all_v_async(const T *send, const std::size_t *send_counts,
                                          const std::size_t *send_displacements, T *recv,
                                          const std::size_t *recv_counts, const std::size_t *recv_displacements)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_all_to_all_v_async(get(), send, send_counts, send_displacements, recv, recv_counts,
                                            recv_displacements, dtype<T>, &work));
        return Work(work);
    }
    template <typename T>
    void send(const T *send, std::size_t count, std::uint32_t peer)
    {
        check(ubccl_comm_send(get(), send, count, dtype<T>, peer));
    }
    template <typename T>
    [[nodiscard]] Work send_async(const T *send, std::size_t count, std::uint32_t peer)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_send_async(get(), send, count, dtype<T>, peer, &work));
        return Work(work);
    }
    template <typename T>
    void receive(T *recv, std::size_t count, std::uint32_t peer)
    {
        check(ubccl_comm_receive(get(), recv, count, dtype<T>, peer));
    }
    template <typename T>
    [[nodiscard]] Work receive_async(T *recv, std::size_t count, std::uint32_t peer)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_receive_async(get(), recv, count, dtype<T>, peer, &work));
        return Work(work);
    }
    template <typename T>
    void send_receive(const T *send, T *recv, std::size_t count, std::uint32_t to, std::uint32_t from)
    {
        check(ubccl_comm_send_receive(get(), send, recv, count, dtype<T>, to, from));
    }
    template <typename T>
    [[nodiscard]] Work send_receive_async(const T *send, T *recv, std::size_t count, std::uint32_t to,
                                          std::uint32_t from)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_send_receive_async(get(), send, recv, count, dtype<T>, to, from, &work));
        return Work(work);
    }
    template <typename T>
    void send_tagged(const T *send, std::size_t count, std::uint32_t peer, std::uint32_t tag)
    {
        check(ubccl_comm_send_tagged(get(), send, count, dtype<T>, peer, tag));
    }
    template <typename T>
    [[nodiscard]] Work send_tagged_async(const T *send, std::size_t count, std::uint32_t peer, std::uint32_t tag)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_send_tagged_async(get(), send, count, dtype<T>, peer, tag, &work));
        return Work(work);
    }
    /// From whom the message is; `source` may be `UBCCL_ANY_SOURCE`.
    template <typename T>
    std::uint32_t receive_tagged(T *recv, std::size_t count, std::uint32_t source, std::uint32_t tag)
    {
        std::uint32_t from = 0;
        check(ubccl_comm_receive_tagged(get(), recv, count, dtype<T>, source, tag, &from));
        return from;
    }
    template <typename T>
    [[nodiscard]] Work receive_tagged_async(T *recv, std::size_t count, std::uint32_t source, std::uint32_t tag)
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_receive_tagged_async(get(), recv, count, dtype<T>, source, tag, &work));
        return Work(work);
    }
    void barrier() { check(ubccl_comm_barrier(get())); }
    [[nodiscard]] Work barrier_async()
    {
        ubccl_work *work = nullptr;
        check(ubccl_comm_barrier_async(get(), &work));
        return Work(work);
    }

private:
    explicit Communicator(ubccl_comm *raw) noexcept : handle_(raw) {}
    std::pair<std::uint32_t, std::uint32_t> place() const
    {
        std::pair<std::uint32_t, std::uint32_t> place;
        check(ubccl_comm_rank(get(), &place.first, &place.second));
        return place;
    }
    template <typename T> static constexpr std::int32_t dtype = DataType<T>::code;
    static constexpr std::int32_t code(Op op) { return static_cast<std::int32_t>(op); }

    Handle<ubccl_comm, ubccl_comm_destroy> handle_;
};

} // namespace ubccl

#endif
