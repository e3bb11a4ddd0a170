// test_progress.cu: the lines that tell how far a layer is.
#include <thread>
#include "../qwen3.cu"
#include "golden.h"
#include "temp.h"
#include "test.h"

static std::vector<std::string> lines_of(const std::string& file) {
    std::istringstream text(read_bytes(file));
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
}

// Lines come this often for as long as it lives.
struct Every {
    explicit Every(double seconds) { Progress::seconds_between = seconds; }
    ~Every() { Progress::seconds_between = 30; }
};

TEST(a_line_of_progress) {
    CHECK_EQ(progress_text(1, 28, 95.2, NAN, 0), "layer 1/28: 1m35s so far");
    CHECK_EQ(progress_text(28, 28, 95.2, 0.456, 7200), "layer 28/28: 46 %, ETA 2h00m");
}

// Against a count and times that are known: the first layer has neither a share nor an end, the second the share of what the first took.
TEST(a_layer_is_measured_by_the_one_before) {
    const TempFolder tmp;
    const std::string log = tmp / "log";
    std::atomic<uint64_t> work{1000};  // of other runs
    {
        const Every often(0.02);
        const SaidTo said(log);
        auto wait = [] { std::this_thread::sleep_for(std::chrono::milliseconds(150)); };
        Progress progress(2, work);
        work += 100;
        wait();
        progress.layer_done(100000);
        work += 50;
        wait();
        work += 500;
        wait();
        progress.layer_done(0);
        wait();  // there is no third
    }
    size_t unknown = 0, halves = 0, ends = 0;
    for (const std::string& line : lines_of(log)) {
        if (line.find("layer 1/2: ") == 0 && ends_with(line, "s so far")) unknown++;
        else if (line == "layer 2/2: 50 %, ETA 27h46m") halves++;
        else if (line == "layer 2/2: 99 %, ETA 27h46m") ends++;
        else CHECK_EQ(line, "layer 2/2: 0 %, ETA 27h46m");  // before the 50, on a machine that lets this wait
    }
    CHECK(unknown >= 1 && halves >= 1 && ends >= 1);
}

// Without a layer that lasts, nothing is said.
TEST(short_layers_have_no_lines) {
    const TempFolder tmp;
    std::atomic<uint64_t> work{0};
    {
        const SaidTo said(tmp / "log");
        Progress progress(3, work);
        for (int l = 0; l < 3; l++) progress.layer_done(1);
    }
    CHECK(lines_of(tmp / "log").empty());
}

// In a run, with calibration or without: shares rise within a layer, and reach its end, since the model's layers are alike.
TEST(a_run_tells_how_far_its_layers_are) {
    skip_when_emulated();
    const TempFolder tmp;
    const Every often(0.001);
    for (const char* method : {"rtn", "gptq"}) {
        std::vector<const char*> args = {"-m", "data/tiny", "--data", "data/tiny", "-q", method, "-e", "wikitext2", "--limit", "4"};
        if (method != std::string("rtn")) args.insert(args.end(), {"-n", "1", "-l", "256"});
        run_quietly(args, tmp / "log");
        std::vector<int> most(4, -1);
        bool first = false;
        for (const std::string& line : lines_of(tmp / "log")) {
            int layer = 0, percent = 0;
            first |= line.find("layer 1/4: ") == 0 && ends_with(line, " so far");
            if (line.find(" %, ETA ") == std::string::npos || sscanf(line.c_str(), "layer %d/4: %d %%", &layer, &percent) != 2) continue;
            CHECK(layer >= 2 && layer <= 4 && percent >= most[layer - 1] && percent <= 99);
            most[layer - 1] = percent;
        }
        CHECK(first);
        for (int l = 1; l < 4; l++)
            if (most[l] < 70) fail("-q %s: layer %d of 4 was said to be at %d %% at most", method, l + 1, most[l]);
    }
}

// Clocks are set back by half an hour in place of waiting: a line is due 50 minutes after the last, and the end needs none.
TEST(parts_are_told_now_and_then) {
    CHECK_EQ(part_text("step", 50, 200, 40), "step 50/200, ETA 2m00s");
    const TempFolder tmp;
    {
        const Every seldom(3000);
        const SaidTo said(tmp / "log");
        Parts parts{"part", 9};
        for (int done : {1, 2, 3, 4, 5, 9}) {
            parts.clock.start -= std::chrono::minutes(30), parts.since_a_line.start -= std::chrono::minutes(30);
            parts.done(done);
        }
    }
    CHECK(lines_of(tmp / "log") == std::vector<std::string>({"part 2/9, ETA 3h30m", "part 4/9, ETA 2h30m"}));
}

// Learning goes through the layers, and then makes its 200 steps for R1; R2 has been learned on the way, in 200 steps a head.
TEST(a_run_tells_how_far_learning_a_rotation_is) {
    skip_when_emulated();
    const TempFolder tmp;
    const Every often(0);
    run_quietly({"-m", "data/tiny", "--data", "data/tiny", "-q", "rtn", "-e", "wikitext2", "--limit", "1", "-l", "128", "--rotate", "--learn-rotation"}, tmp / "log");
    std::vector<int> layers;
    int steps = 0, done = 0;
    for (const std::string& line : lines_of(tmp / "log")) {
        if (sscanf(line.c_str(), "learning a rotation: step %d/200, ETA ", &done) == 1) steps++;
        if (sscanf(line.c_str(), "learning a rotation: samples through layer %d/4, ETA ", &done) == 1) layers.push_back(done);
    }
    CHECK(layers == std::vector<int>({1, 2, 3}));
    CHECK_EQ(steps, 199 * (4 * 2 + 1));
}
