// progress.h: a line now and then from work that takes long: layers, a minute or an hour each on a CPU (Progress), and parts too short
// for a line each (Parts).
//
// How much of a layer is done is told by what its products have counted, and the whole of it by what the layer before has taken in all.
// So the first layer has neither a percentage nor an ETA, and one that has more to do than the layer before (a mixture's after a dense one)
// stays at 99 %.
// defines: Progress, progress_text, Parts, part_text
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>
#include "clock.h"

// layer: from 1. share: of it, NAN where that is not known. eta: seconds to the end of the run.
inline std::string progress_text(int layer, int layers, double seconds, double share, double eta) {
    const std::string where = format("layer %d/%d: ", layer, layers);
    if (std::isnan(share)) return where + duration_text(seconds) + " so far";
    return where + format("%.0f %%, ETA ", 100 * share) + duration_text(eta);
}

// Begins with the first layer; layer_done begins the next one. A thread of its own says the lines, so that nobody has to who works.
struct Progress {
    static inline double seconds_between = 30;  // lines

    const int layers;
    const std::atomic<uint64_t>& work;  // grows as work is done
    std::mutex mutex;                   // over all that follows
    std::condition_variable changed;
    bool ended = false;
    int layer = 1;
    Clock clock;  // since the layer began
    uint64_t work_before, work_of_one = 0;
    double seconds_of_one = 0, eta = 0;
    std::thread thread;

    Progress(int n_layers, const std::atomic<uint64_t>& counted) : layers(n_layers), work(counted), work_before(counted) {
        thread = std::thread([this] { watch(); });
    }
    Progress(const Progress&) = delete;
    ~Progress() {
        {
            const std::lock_guard<std::mutex> lock(mutex);
            ended = true;
        }
        changed.notify_all();
        thread.join();
    }

    // eta_now: seconds from here to the end of the run.
    void layer_done(double eta_now) {
        {
            const std::lock_guard<std::mutex> lock(mutex);
            const uint64_t now = work;
            work_of_one = now - work_before, work_before = now;
            seconds_of_one = clock.seconds(), clock = Clock();
            eta = eta_now;
            layer++;
        }
        changed.notify_all();
    }

    void watch() {
        std::unique_lock<std::mutex> lock(mutex);
        while (!ended) {
            const int now = layer;
            const std::chrono::duration<double> interval(seconds_between);
            if (changed.wait_for(lock, interval, [&] { return ended || layer != now; }) || layer > layers) continue;
            const double share = work_of_one ? std::min(0.99, (double)(work - work_before) / (double)work_of_one) : NAN;
            fprintf(stderr, "%s\n", progress_text(layer, layers, clock.seconds(), share, std::max(0.0, eta - share * seconds_of_one)).c_str());
        }
    }
};

// n: how many of them. done: at least one.
inline std::string part_text(const char* what, int done, int n, double seconds) {
    return format("%s %d/%d, ETA ", what, done, n) + duration_text(seconds / done * (n - done));
}

// Of work in equal parts that are short, a line at most every Progress::seconds_between, and none of the last.
struct Parts {
    const char* what;
    int n;
    Clock clock = Clock(), since_a_line = Clock();

    void done(int parts) {
        if (parts == n || since_a_line.seconds() < Progress::seconds_between) return;
        since_a_line = Clock();
        fprintf(stderr, "%s\n", part_text(what, parts, n, clock.seconds()).c_str());
    }
};
