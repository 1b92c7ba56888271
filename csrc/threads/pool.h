// A fixed set of threads that run one job together, with a barrier inside the job.
//
// A thread has a share of the work by its number, or also takes what others have not begun. No sum crosses
// threads and nothing that is computed knows who computed it, so results do not depend on the number of
// threads. Threads spin briefly, then sleep.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace puna {

class ThreadPool;

// Memory that is about to be read.
struct Soon {
    const uint8_t* bytes = nullptr;
    int64_t size = 0;
};

// A thread's view of a running job.
class Worker {
  public:
    int index() const { return index_; }
    int count() const { return count_; }

    // Waits until every thread of the job is here; what they wrote before is visible after. Meanwhile it asks
    // for what it will read next: otherwise memory would idle with it.
    void barrier(Soon soon = {});

    // This thread's share of [0, n): the same split for the same n and thread count.
    struct Range {
        int64_t begin, end;
    };
    Range share(int64_t n) const { return share_of(index_, n); }

    // Calls work(begin, end) for pieces of [0, n) until no thread has any left: first of this thread's share,
    // then of the others', so that nobody waits for a thread that the machine slows down. Once between two
    // barriers.
    template <class Work>
    void deal(int64_t n, const Work& work) {
        for (int i = 0; i < count_; i++) {
            const int owner = (index_ + i) % count_;
            const auto [begin, end] = share_of(owner, n);
            for (Range piece = take(owner, end - begin); piece.begin < piece.end;
                 piece = take(owner, end - begin))
                work(begin + piece.begin, begin + piece.end);
        }
    }

  private:
    friend class ThreadPool;
    Worker(ThreadPool& pool, int index, int count) : pool_(pool), index_(index), count_(count) {}
    Range share_of(int index, int64_t n) const { return {n * index / count_, n * (index + 1) / count_}; }
    // The next piece of what is left of the owner's share of that size, a quarter; empty when nothing is.
    // Even while it can be: kernels take tiles in pairs.
    Range take(int owner, int64_t size);
    ThreadPool& pool_;
    int index_, count_;
};

class ThreadPool {
  public:
    explicit ThreadPool(int n_threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int size() const { return size_; }

    // Runs job on every thread, the caller's included, and returns when all are done. The job must not throw.
    // One job at a time: calls from several threads wait for each other.
    void run(const std::function<void(Worker&)>& job);

  private:
    friend class Worker;
    void work(int index);
    void arrive_and_wait(Soon soon = {});

    const int size_;
    std::mutex run_mutex_;
    std::mutex sleep_mutex_;
    std::condition_variable wake_;
    const std::function<void(Worker&)>* job_ = nullptr;
    std::atomic<uint64_t> job_number_{0};
    std::atomic<bool> stop_{false};
    // Sense-counting barrier: the last thread to arrive opens the next phase.
    std::atomic<int> arrived_{0};
    std::atomic<uint64_t> phase_{0};
    // How much of each thread's share is taken, between two barriers.
    struct alignas(64) Taken {
        std::atomic<int64_t> count{0};
    };
    std::unique_ptr<Taken[]> taken_;
    std::vector<std::thread> threads_;
};

}  // namespace puna
