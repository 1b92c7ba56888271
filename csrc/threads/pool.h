// A fixed set of threads that run one job together, with a barrier inside the job.
//
// Work is always split by thread number, never taken from a queue, and no sum crosses threads, so results do
// not depend on the number of threads. Threads spin briefly, then sleep.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace puna {

class ThreadPool;

// A thread's view of a running job.
class Worker {
  public:
    int index() const { return index_; }
    int count() const { return count_; }

    // Waits until every thread of the job is here; what they wrote before is visible after.
    void barrier();

    // This thread's share of [0, n): the same split for the same n and thread count.
    struct Range {
        int64_t begin, end;
    };
    Range share(int64_t n) const { return {n * index_ / count_, n * (index_ + 1) / count_}; }

  private:
    friend class ThreadPool;
    Worker(ThreadPool& pool, int index, int count) : pool_(pool), index_(index), count_(count) {}
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
    void arrive_and_wait();

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
    std::vector<std::thread> threads_;
};

}  // namespace puna
