#include "threads/pool.h"

#include "base/check.h"

namespace puna {

namespace {

// Long enough for the gap between two layers, short enough to leave an oversubscribed machine alone.
constexpr int kSpins = 4000;

inline void pause_cpu() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

}  // namespace

void Worker::barrier() { pool_.arrive_and_wait(); }

ThreadPool::ThreadPool(int n_threads) : size_(n_threads) {
    PUNA_CHECK(n_threads >= 1 && n_threads <= 1024,
               "threads: need 1 to 1024, got " + std::to_string(n_threads));
    for (int i = 1; i < size_; i++) threads_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
    {
        const std::lock_guard lock(sleep_mutex_);
        stop_.store(true);
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(const std::function<void(Worker&)>& job) {
    const std::lock_guard one_at_a_time(run_mutex_);
    {
        const std::lock_guard lock(sleep_mutex_);
        job_ = &job;
        job_number_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    Worker self(*this, 0, size_);
    job(self);
    arrive_and_wait();
}

void ThreadPool::work(int index) {
    uint64_t done = 0;
    for (;;) {
        for (int spin = 0; spin < kSpins && job_number_.load(std::memory_order_acquire) == done; spin++) {
            if (stop_.load(std::memory_order_relaxed)) return;
            pause_cpu();
        }
        if (job_number_.load(std::memory_order_acquire) == done) {
            std::unique_lock lock(sleep_mutex_);
            wake_.wait(lock, [&] { return stop_.load() || job_number_.load() != done; });
            if (stop_.load()) return;
        }
        done++;
        Worker self(*this, index, size_);
        (*job_)(self);
        arrive_and_wait();
    }
}

void ThreadPool::arrive_and_wait() {
    const uint64_t phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
        arrived_.store(0, std::memory_order_relaxed);
        phase_.store(phase + 1, std::memory_order_release);
        return;
    }
    for (int spin = 0; phase_.load(std::memory_order_acquire) == phase; spin++) {
        pause_cpu();
        // The other threads may not be running at all: give way.
        if (spin >= kSpins) {
            std::this_thread::yield();
            spin = 0;
        }
    }
}

}  // namespace puna
