#include "threads/pool.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <thread>

#include "tests/check.h"

namespace puna::test {

void test_pool() {
    for (const int n : {1, 2, 5}) {
        ThreadPool pool(n);
        std::vector<int64_t> cells(1000);
        for (int round = 0; round < 50; round++) {
            pool.run([&](Worker& worker) {
                const auto [begin, end] = worker.share(1000);
                for (int64_t i = begin; i < end; i++) cells[static_cast<size_t>(i)]++;
                worker.barrier();
                // Written before the barrier by another thread.
                const auto other = static_cast<size_t>(999 - begin);
                if (cells[other] != round + 1) cells[0] = -1000000;
                worker.barrier();
            });
        }
        REQUIRE(std::accumulate(cells.begin(), cells.end(), int64_t{0}) == 50000);
    }
    // Whatever the threads take from one another, each piece is computed once, and again after a barrier.
    for (const int n : {1, 2, 3, 7}) {
        ThreadPool pool(n);
        const std::vector<uint8_t> soon(1000);
        for (const int64_t size : {0, 1, 2, 5, 64, 1000}) {
            std::vector<int64_t> cells(static_cast<size_t>(size));
            pool.run([&](Worker& worker) {
                for (int round = 0; round < 20; round++) {
                    worker.deal(size, [&](int64_t begin, int64_t end) {
                        for (int64_t i = begin; i < end; i++) cells[static_cast<size_t>(i)]++;
                        if (worker.index() == 0) std::this_thread::yield();
                    });
                    worker.barrier({soon.data(), static_cast<int64_t>(soon.size())});
                }
            });
            REQUIRE(std::all_of(cells.begin(), cells.end(), [](int64_t cell) { return cell == 20; }));
        }
    }
    // Several callers at once take turns.
    ThreadPool shared(2);
    std::atomic<int> total{0};
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; i++)
        callers.emplace_back([&] {
            for (int j = 0; j < 20; j++) shared.run([&](Worker&) { total++; });
        });
    for (std::thread& caller : callers) caller.join();
    REQUIRE(total == 120);
}

}  // namespace puna::test
