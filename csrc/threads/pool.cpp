#include "threads/pool.h"

#include <algorithm>

#include "base/check.h"

namespace puna {

namespace {

// Long enough for the gap between two layers, short enough to leave an oversubscribed machine alone.
constexpr int kSpins = 4000;

// What a waiting thread asks for at most, well within its own second cache.
constexpr int64_t kSoonBytes = 64 << 10;

inline void pause_cpu() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

}  // namespace

void Worker::barrier(Soon soon) { pool_.arrive_and_wait(soon); }

// A quarter of what is left: few pieces at first, and small ones when the others may be done.
Worker::Range Worker::take(int owner, int64_t size) {
    std::atomic<int64_t>& taken = pool_.taken_[static_cast<size_t>(owner)].count;
    int64_t begin = taken.load(std::memory_order_relaxed), end;
    do {
        if (begin >= size) return {size, size};
        end = std::min(size, begin + 2 * ((size - begin + 7) / 8));
    } while (!taken.compare_exchange_weak(begin, end, std::memory_order_relaxed));
    return {begin, end};
}

ThreadPool::ThreadPool(int n_threads) : size_(n_threads) {
    PUNA_CHECK(n_threads >= 1 && n_threads <= 1024,
               "threads: need 1 to 1024, got " + std::to_string(n_threads));
    taken_ = std::make_unique<Taken[]>(static_cast<size_t>(size_));
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

void ThreadPool::arrive_and_wait(Soon soon) {
    const uint64_t phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
        arrived_.store(0, std::memory_order_relaxed);
        for (int i = 0; i < size_; i++)
            taken_[static_cast<size_t>(i)].count.store(0, std::memory_order_relaxed);
        phase_.store(phase + 1, std::memory_order_release);
        return;
    }
    const int64_t wanted = std::min(soon.size, kSoonBytes);
    int64_t asked = 0;
    for (int spin = 0; phase_.load(std::memory_order_acquire) == phase; spin++) {
        if (asked < wanted)
            for (int i = 0; i < 4; i++, asked += 64) __builtin_prefetch(soon.bytes + asked, 0, 2);
        else
            pause_cpu();
        // The other threads may not be running at all: give way.
        if (spin >= kSpins) {
            std::this_thread::yield();
            spin = 0;
        }
    }
}

}  // namespace puna
