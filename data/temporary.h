// temporary.h: files and folders that are put together under a temporary name and get their own when they are complete. A temporary
// does not outlive the program: not a failure, and not Ctrl-C, a terminal that closes or a batch system that ends the job.
//
// defines: is_mount_point, Temporary, remove_temporaries, remove_temporaries_on_signals
#pragma once
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <sys/stat.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include "error.h"

struct Temporaries {
    std::mutex mutex;
    std::set<std::string> paths;
};
inline Temporaries& temporaries() {
    static Temporaries* all = new Temporaries;  // never destroyed: a signal may come while the program ends
    return *all;
}

// Whether something is mounted on the folder `dir`, as containers get their volumes: nothing else can be given its name then.
inline bool is_mount_point(const std::string& dir) {
#ifdef STATX_ATTR_MOUNT_ROOT
    struct statx here_x;
    if (statx(AT_FDCWD, dir.c_str(), 0, 0, &here_x) == 0 && (here_x.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT))
        return here_x.stx_attributes & STATX_ATTR_MOUNT_ROOT;
#endif
    struct stat here, above;
    return stat(dir.c_str(), &here) == 0 && stat((dir + "/..").c_str(), &above) == 0 && here.st_dev != above.st_dev;
}

// A new file or folder beside `target`, TARGET.tmp-XXXXXXXX, which nobody else has: what lies there already, a link included, is left
// alone and another name is tried. It is removed with this object, unless it was renamed to its target.
struct Temporary {
    std::string path, target;
    bool renamed = false;

    Temporary(const std::string& target, bool folder) : target(target) {
        std::random_device random;
        Temporaries& all = temporaries();
        const std::lock_guard<std::mutex> lock(all.mutex);
        int made = -1;
        for (int attempt = 0; made < 0 && attempt < 100; attempt++) {
            path = target + format(".tmp-%08x", random());
            made = folder ? mkdir(path.c_str(), 0777) : open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
            if (made < 0 && errno != EEXIST) break;
        }
        if (made < 0)
            fail("%s: the %s can't be created: %s. HINT: is the folder above it there, and may you write to it?", path.c_str(),
                 folder ? "folder" : "file", strerror(errno));
        if (!folder) close(made);
        all.paths.insert(path);
    }
    Temporary(const Temporary&) = delete;
    Temporary& operator=(const Temporary&) = delete;
    ~Temporary() {
        Temporaries& all = temporaries();
        const std::lock_guard<std::mutex> lock(all.mutex);
        std::error_code ignored;
        if (!renamed) std::filesystem::remove_all(path, ignored);
        all.paths.erase(path);
    }

    // Gives it its name. If that fails, it stays where it is: the work is done, and the message says where it lies.
    void rename_to_target() {
        Temporaries& all = temporaries();
        const std::lock_guard<std::mutex> lock(all.mutex);
        renamed = true;
        all.paths.erase(path);
        if (rename(path.c_str(), target.c_str()) != 0)
            fail("%s: what was written can't be given this name: %s. HINT: it is complete in %s, rename that", target.c_str(),
                 strerror(errno), path.c_str());
    }
};

// The program is about to end, in whatever way.
inline void remove_temporaries() {
    Temporaries& all = temporaries();
    all.mutex.lock();  // for good: no new ones
    std::error_code ignored;
    for (const std::string& path : all.paths) std::filesystem::remove_all(path, ignored);
}

// Call before any other thread is made. A thread waits for the signals that end a program, removes the temporaries, and lets the signal
// do its work. A signal that is ignored, as nohup does it, stays so. A write that a signal would punish, beyond a limit of size or to a
// pipe that nobody reads, fails instead, as all others do.
inline void remove_temporaries_on_signals() {
    sigset_t ending;
    sigemptyset(&ending);
    for (int signal : {SIGINT, SIGTERM, SIGHUP}) {
        struct sigaction action;
        if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) sigaddset(&ending, signal);
    }
    pthread_sigmask(SIG_BLOCK, &ending, nullptr);
    for (int signal : {SIGXFSZ, SIGPIPE}) std::signal(signal, SIG_IGN);
    auto wait = [ending] {
        int signal = 0;
        if (sigwait(&ending, &signal) != 0) return;
        remove_temporaries();
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, signal);
        pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
        raise(signal);
    };
    try {
        std::thread(wait).detach();
    } catch (const std::system_error&) {  // no thread can be had: the signals end the program as they always do
        pthread_sigmask(SIG_UNBLOCK, &ending, nullptr);
    }
}
