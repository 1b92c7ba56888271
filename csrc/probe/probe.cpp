#include "probe/probe.h"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <new>
#include <vector>

#include "base/check.h"
#include "kernels/dispatch.h"
#include "model/rows.h"
#include "threads/pool.h"

namespace puna {

namespace {

constexpr int64_t kUnitBytes = 256;
constexpr int64_t kRounds = 65536, kRepeats = 8;  // milliseconds with the widest instructions

// The best rate of `work` units, with all threads at it together and timed by the caller.
template <class Job>
double best_rate(ThreadPool& pool, int passes, double work, const Job& job) {
    double best = 0;
    for (int pass = 0; pass < passes; pass++) {
        const auto begin = std::chrono::steady_clock::now();
        pool.run(job);
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
        best = std::max(best, work / seconds.count());
    }
    return best;
}

// Processor time of this thread, which others on the machine do not add to.
double thread_seconds() {
#ifdef CLOCK_THREAD_CPUTIME_ID
    timespec t;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0)
        return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
#endif
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void check(int n_threads, int passes) {
    PUNA_CHECK(n_threads >= 1 && n_threads <= 1024, "the number of threads must be 1 to 1024");
    PUNA_CHECK(passes >= 1, "there must be a pass at least");
}

}  // namespace

double read_rate(int n_threads, int64_t n_bytes, int passes) {
    check(n_threads, passes);
    PUNA_CHECK(n_bytes >= kUnitBytes && n_bytes <= int64_t{1} << 40, "the bytes must be 256 to 2^40");
    const int64_t units = n_bytes / kUnitBytes;
    const KernelTable& table = kernels();
    ThreadPool pool(n_threads);
    std::vector<float> sums(static_cast<size_t>(n_threads));
    std::unique_ptr<uint8_t[]> bytes(new (std::nothrow) uint8_t[static_cast<size_t>(units * kUnitBytes)]);
    PUNA_CHECK(bytes != nullptr, "there is no memory for what is to be read");
    // Written by the thread that will read it: memory lies near whoever touches it first.
    pool.run([&](Worker& worker) {
        const auto [begin, end] = worker.share(units);
        std::fill(bytes.get() + begin * kUnitBytes, bytes.get() + end * kUnitBytes, uint8_t{0});
    });
    // Some machines read faster when asked a page ahead, as their own prefetch stops at the end of each;
    // others when left alone.
    double best = 0;
    for (const int64_t ahead : {0, 4096}) {
        const auto read = [&](Worker& worker) {
            const auto [begin, end] = worker.share(units);
            sums[static_cast<size_t>(worker.index())] =
                table.read_through(bytes.get() + begin * kUnitBytes, (end - begin) * kUnitBytes, ahead);
        };
        best = std::max(best, best_rate(pool, passes, static_cast<double>(units * kUnitBytes), read));
    }
    return best;
}

double multiply_rate(int n_threads, int passes) {
    check(n_threads, passes);
    const KernelTable& table = kernels();
    ThreadPool pool(n_threads);
    std::vector<float> sums(static_cast<size_t>(n_threads));
    const double products = 4096.0 * static_cast<double>(kRounds * kRepeats * n_threads);
    return best_rate(pool, passes, products, [&](Worker& worker) {
        for (int64_t i = 0; i < kRepeats; i++)
            sums[static_cast<size_t>(worker.index())] += table.multiply_bytes(kRounds);
    });
}

double matmul_rate(const KernelTable& table, const Weight& weight, const float* x, int64_t rows,
                   int n_threads, int passes) {
    check(n_threads, passes);
    Needs needs;
    needs.add(weight);
    QuantizedRows in(weight.columns);
    Rows y(weight.padded_rows());
    in.reserve(rows);
    y.reserve(rows);
    for (int64_t i = 0; i < rows; i++) {
        std::copy_n(x + i * weight.columns, weight.columns, in.values.row(i));
        in.prepare(table, needs, i);
    }
    ThreadPool pool(n_threads);
    std::vector<double> seconds(static_cast<size_t>(n_threads));
    double best = 0;
    for (int pass = 0; pass < passes; pass++) {
        pool.run([&](Worker& worker) {
            const auto [first, last] = worker.share(weight.tiles());
            const double begin = thread_seconds();
            table.matmul({weight.format, weight.data, weight.padded_columns(), first, last, in.view(rows),
                          y.row(0), y.stride()});
            seconds[static_cast<size_t>(worker.index())] = thread_seconds() - begin;
        });
        const double slowest = *std::max_element(seconds.begin(), seconds.end());
        best = std::max(best, static_cast<double>(weight.rows * weight.columns * rows) / slowest);
    }
    return best;
}

}  // namespace puna
