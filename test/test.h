// test.h: the whole test framework. A test is a TEST(name) { ... } block; a failed CHECK ends it. Each program prints a line
// a test and closes with "N passed, N failed, N skipped"; its exit status is the verdict. `program NAME` runs only the tests
// whose name contains NAME, `program test_FILE` those of one file.
//
// defines: TEST, CHECK, CHECK_NEAR, CHECK_EQ, CHECK_ERROR, SKIP, skip_when_emulated, shared_data, before_each_test
#pragma once
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <string>
#include <sys/stat.h>
#include <vector>
#if defined(__CUDACC__) && !defined(EMULATED)
#include <cuda_runtime.h>
#endif

struct TestCase {
    const char* name;
    std::string file;  // "test_json"
    void (*run)();
};
struct TestFailure : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct TestSkip : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline void (*before_each_test)() = nullptr;

inline std::vector<TestCase>& test_cases() {
    static std::vector<TestCase> cases;
    return cases;
}
struct TestRegistration {
    TestRegistration(const char* name, const char* path, void (*run)()) {
        std::string file = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
        test_cases().push_back({name, file.substr(0, file.find('.')), run});
    }
};

[[noreturn]] inline void test_fail(const char* file, int line, const std::string& what) {
    throw TestFailure(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

template <class A, class B> void check_eq(const char* file, int line, const char* text, const A& a, const B& b) {
    if (a == b) return;
    std::ostringstream s;
    s << text << ": " << a << " != " << b;
    test_fail(file, line, s.str());
}

// |a - b| <= tol; a NaN never passes.
inline void check_near(const char* file, int line, const char* text, double a, double b, double tol) {
    if (std::fabs(a - b) <= tol) return;
    std::ostringstream s;
    s.precision(9);
    s << text << ": " << a << " and " << b << " differ by " << std::fabs(a - b) << ", more than " << tol;
    test_fail(file, line, s.str());
}

#define TEST(name)                                                                                                     \
    static void test_##name();                                                                                         \
    static TestRegistration register_##name(#name, __FILE__, test_##name);                                                      \
    static void test_##name()
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) test_fail(__FILE__, __LINE__, #condition " is false");                                       \
    } while (0)
#define CHECK_EQ(a, b) check_eq(__FILE__, __LINE__, #a " == " #b, (a), (b))
#define CHECK_NEAR(a, b, tol) check_near(__FILE__, __LINE__, #a " ~ " #b, (double)(a), (double)(b), (double)(tol))
// The statement must throw, and the message must contain `text`.
#define CHECK_ERROR(statement, text)                                                                                   \
    do {                                                                                                               \
        std::string message_;                                                                                          \
        try {                                                                                                          \
            statement;                                                                                                 \
        } catch (const std::exception& e) {                                                                            \
            message_ = e.what();                                                                                       \
            if (message_.empty()) message_ = "(an empty message)";                                                     \
        }                                                                                                              \
        if (message_.empty()) test_fail(__FILE__, __LINE__, #statement " did not fail");                               \
        if (message_.find(text) == std::string::npos)                                                                  \
            test_fail(__FILE__, __LINE__, std::string("expected an error with \"") + (text) + "\", got: " + message_); \
    } while (0)
#define SKIP(why) throw TestSkip(why)

// At the head of a test that takes minutes on the emulated GPU (make test EMULATE=1).
inline void skip_when_emulated() {
#ifdef EMULATED
    if (!getenv("EMULATE_ALL")) SKIP("takes long on the emulated GPU; EMULATE_ALL=1 runs it");
#endif
}

// Folder of real evaluation data (see README, "Tests"), or skips the test: $QWEN3_DATA, else ../shared/data.
inline std::string shared_data() {
    const char* env = getenv("QWEN3_DATA");
    std::string dir = env && *env ? env : "../shared/data";
    struct stat st;
    if (stat(dir.c_str(), &st) != 0) SKIP("no real data: neither $QWEN3_DATA nor ../shared/data is there");
    return dir;
}

// After an illegal address every later call of the process fails, and so would every test.
inline bool device_is_lost() {
#if defined(__CUDACC__) && !defined(EMULATED)
    return cudaDeviceSynchronize() != cudaSuccess;
#else
    return false;
#endif
}

int main(int argc, char** argv) {
    int passed = 0, failed = 0, skipped = 0;
    std::string file;
    for (const TestCase& t : test_cases()) {
        if (argc > 1 && t.file != argv[1] && !strstr(t.name, argv[1])) continue;
        if (t.file != file) printf("-- %s\n", t.file.c_str());
        file = t.file;
        auto start = std::chrono::steady_clock::now();
        std::string verdict = "ok", why;
        if (before_each_test) before_each_test();
        try {
            t.run();
            passed++;
        } catch (const TestSkip& e) {
            verdict = "skipped", why = e.what(), skipped++;
        } catch (const std::exception& e) {
            verdict = "FAILED", why = e.what(), failed++;
        }
        double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        printf("%-8s %-44s %7.2f s%s%s\n", verdict.c_str(), t.name, seconds, why.empty() ? "" : "  ", why.c_str());
        fflush(stdout);
        if (verdict == "FAILED" && device_is_lost()) {
            printf("the device is lost since %s: the tests after it were not run\n", t.name);
            break;
        }
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed > 0 || passed + skipped == 0;
}
