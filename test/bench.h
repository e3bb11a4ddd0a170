// bench.h: what a benchmark is made of. Times on a machine that others use too are noisy, so whatever is compared runs in turn,
// A B A B ..., within one process, and the best time of each counts: noise only ever makes a run slower.
//
// A row says what was achieved, the limit, and the ratio of the two, which the goal is about. Limits are measured in the same run:
// on the CPU what the multipliers do on registers alone, on the GPU what cuBLAS reaches on a large product.
//
// defines: race, Peaks, measured_peaks, peak_probe, Goal, at_least, at_most, Table, random_array
#pragma once
#include <chrono>
#include <ctime>
#include <functional>
#include <random>
#include <thread>
#include <vector>
#include "../cuda/gemm.cuh"
#include "../data/file.h"
#include "../data/json.h"

typedef std::function<void()> Work;

// The best seconds of each run, which take turns for at least `rounds` rounds and `budget` seconds. `prepare` goes before every run
// and isn't timed.
inline std::vector<double> race(const std::vector<Work>& runs, double budget, int rounds = 3, const Work& prepare = nullptr) {
    std::vector<double> best(runs.size(), INFINITY);
    double total = 0;
    for (int round = 0; round < rounds || total < budget; round++)
        for (size_t i = 0; i < runs.size(); i++) {
            if (prepare) prepare();
            device_wait();
#ifndef __CUDACC__
            // OpenMP's and OpenBLAS's idle threads spin for a while before they sleep, on the cores that the next run needs.
            std::this_thread::sleep_for(std::chrono::milliseconds(60));
#endif
            const auto start = std::chrono::steady_clock::now();
            runs[i]();
            device_wait();
            const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
            best[i] = std::min(best[i], seconds), total += seconds;
        }
    return best;
}

// Values between -1/2 and 1/2, the same in every run: a million that are drawn, again and again, as drawing takes longer than a GPU's runs.
template <class T> Array<T> random_array(size_t n) {
    const size_t period = 1000003;
    std::vector<T> host(n);
    std::mt19937 generator(1);
    for (size_t i = 0; i < std::min(n, period); i++) {
        const float value = (float)generator() / 4294967296.0f - 0.5f;
        if constexpr (sizeof(T) == 2) host[i] = to_bf16(value);
        else host[i] = value;
    }
    for (size_t i = period; i < n; i++) host[i] = host[i - period];
    Array<T> device(n, "benchmark");
    copy(device.data, host.data(), n);
    return device;
}

// ---------------------------------------------------------------------------------------------------------------------
// Limits. A probe is a run of known work, to take part in races.

struct Probe {
    Work run;
    double work;  // operations
};

#ifdef __CUDACC__

// A product of two 8192 x 8192 matrices, of floatX or of float.
template <class T> Probe peak_probe() {
    const int n = 8192;
    static Array<T> A = random_array<T>((size_t)n * n), C((size_t)n * n, "benchmark");
    const auto run = [] {
        if constexpr (std::is_same<T, floatX>::value) gemm(C.data, A.data, A.data, n, n, n);
        else gemm_float(C.data, n, A.data, n, A.data, n, n, n, n, 1, 0);
    };
    return {run, 2.0 * n * n * n};
}

#else

// `step` on as many independent vectors of sums as the micro-kernel of gemm_cpu.h has, on all threads.
template <class Step> Probe register_probe(int operations, Step step) {
    constexpr int n_sums = 2 * VECTOR_ROWS;
    const long steps = 1000000;
    const auto run = [=] {
        float total = 0;
#pragma omp parallel reduction(+ : total)
        {
            Vector<float> sums[n_sums];
            for (int i = 0; i < n_sums; i++) sums[i] = Vector<float>{} + (float)i;
            for (long s = 0; s < steps; s++)
#pragma GCC unroll 28
                for (int i = 0; i < n_sums; i++) sums[i] = step(sums[i]);
            for (int i = 0; i < n_sums; i++) total += sums[i][0];
        }
        volatile float used = total;  // or the compiler would see that nobody needs the sums
        (void)used;
    };
    return {run, (double)operations * LANES<float> * n_sums * steps * omp_get_max_threads()};
}

// tdpbf16ps on 2 x 2 tiles of sums, as the micro-kernel has, on all threads.
inline Probe tile_probe() {
    const long steps = 200000, operations = 2 * TILE * TILE * 2 * TILE;
    const auto run = [=] {
#pragma omp parallel
        {
            const std::vector<uint32_t> zeros(TILE * TILE);
            tiles_begin<true>();
            tile_zero<true, 0>(), tile_zero<true, 1>(), tile_zero<true, 2>(), tile_zero<true, 3>();
            tile_load<true, 4>(zeros.data(), 64), tile_load<true, 5>(zeros.data(), 64);
            tile_load<true, 6>(zeros.data(), 64), tile_load<true, 7>(zeros.data(), 64);
            for (long s = 0; s < steps; s++) {
                tile_dot<true, 0, 4, 6>(), tile_dot<true, 1, 4, 7>();
                tile_dot<true, 2, 5, 6>(), tile_dot<true, 3, 5, 7>();
            }
            tiles_end<true>();
        }
    };
    return {run, 4.0 * operations * steps * omp_get_max_threads()};
}

// Fused multiply-adds of float, or what products of bf16 are made of here.
template <class T> Probe peak_probe() {
    if (sizeof(T) == 2 && bf16_product() == Bf16Product::Tiles) return tile_probe();
#ifdef BF16_PAIRS
    if (sizeof(T) == 2 && bf16_product() == Bf16Product::Pairs) {
        const Bf16Pair ones = 0x3f803f80u;  // 1 and 1
        const Vector<Bf16Pair> pairs = Vector<Bf16Pair>{} + ones;
        return register_probe(4, [=](Vector<float> sum) { return multiply_add(sum, ones, pairs); });
    }
#endif
    const Vector<float> x = Vector<float>{} + 0.999f, y = Vector<float>{} + 0.5f;  // two: sum x + x becomes (sum + 1) x, not fused
    return register_probe(2, [=](Vector<float> sum) { return sum * x + y; });
}

#endif

// ---------------------------------------------------------------------------------------------------------------------
// The table

struct Goal {
    double ratio;  // 0: none
    bool at_most;
    bool met(double x) const { return at_most ? x <= ratio : x >= ratio; }
};
inline Goal at_least(double ratio) { return {ratio, false}; }
inline Goal at_most(double ratio) { return {ratio, true}; }
inline Goal no_goal() { return {0, false}; }

struct Table {
    struct Row {
        std::string what, unit;
        double achieved, limit;
        std::string limit_is;
        Goal goal;
        double ratio() const { return achieved / limit; }
    };
    std::vector<Row> rows;

    void title() const {
        printf("%-46s %9s %9s %-8s %6s %9s  %-3s  %s\n", "what", "achieved", "limit", "", "ratio", "goal", "met", "the limit is");
    }
    void add(const Row& r) {
        rows.push_back(r);
        const std::string goal = r.goal.ratio == 0 ? "" : format("%s %.2f", r.goal.at_most ? "<=" : ">=", r.goal.ratio);
        printf("%-46s %9.1f %9.1f %-8s %6.2f %9s  %-3s  %s\n", r.what.c_str(), r.achieved, r.limit, r.unit.c_str(), r.ratio(),
               goal.c_str(), r.goal.ratio == 0 ? "" : r.goal.met(r.ratio()) ? "yes" : "NO", r.limit_is.c_str());
        fflush(stdout);
    }
    // Rates in GFLOP/s.
    void add_rate(const std::string& what, double work, double seconds, double limit, const std::string& limit_is, Goal goal) {
        add({what, "GFLOP/s", 1e-9 * work / seconds, 1e-9 * limit, limit_is, goal});
    }
    void close() const {
        int goals = 0, met = 0;
        for (const Row& r : rows)
            if (r.goal.ratio != 0) goals++, met += r.goal.met(r.ratio());
        printf("%d of %d goals met\n", met, goals);
    }
    void write_json(const std::string& path, const std::string& commit) const {
        char date[32];
        const time_t now = time(nullptr);
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
        std::string s = "{\"device\": " + json_quote(device_name()) + ", \"precision\": \"" FLOATX_NAME "\", \"commit\": " +
                        json_quote(commit) + ", \"date\": " + json_quote(date) + ", \"rows\": [";
        for (size_t i = 0; i < rows.size(); i++) {
            const Row& r = rows[i];
            s += (i ? ",\n  {" : "\n  {") + ("\"what\": " + json_quote(r.what)) + ", \"achieved\": " + json_format(r.achieved) +
                 ", \"limit\": " + json_format(r.limit) + ", \"unit\": " + json_quote(r.unit) + ", \"limit_is\": " +
                 json_quote(r.limit_is) + ", \"ratio\": " + json_format(r.ratio());
            if (r.goal.ratio != 0)
                s += std::string(", \"goal\": \"") + (r.goal.at_most ? "<= " : ">= ") + json_format(r.goal.ratio) +
                     "\", \"met\": " + (r.goal.met(r.ratio()) ? "true" : "false");
            s += "}";
        }
        write_file(path, s + "\n]}\n");
    }
};
