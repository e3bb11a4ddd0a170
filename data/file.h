// file.h: raw bytes in and out. A file is memory-mapped read-only, so that gigabytes of weights or text cost nothing
// until they are read; the text in it is checked to be UTF-8 (RFC 3629) before anybody interprets it. A file is written
// with every byte accounted for.
//
// A run reads its files for hours, and a number is only worth something if they stayed as they were while they were read: every file that
// is mapped is remembered with its size and time, and compared when it is closed, when it is opened again, and at the end. What was closed
// in time, as a table that was parsed in the first second, may change without harm.
//
// defines: file_exists, is_directory, MappedFile, file_text, is_blank, files_unchanged_or_fail, fail_on_lost_files, utf8_invalid_at,
//          open_descriptor_of, OutputFile, write_file
#pragma once
#include "error.h"
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

// Whether there is a file. What has its name but can't be one (a link to nothing, as a hub's cache leaves where a blob is gone; a FIFO) is
// an error: a settings file that counts as absent would change results without a word.
inline bool file_exists(const std::string& path) {
    struct stat st;
    if (stat(path.c_str(), &st) == 0) {
        if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) return S_ISREG(st.st_mode);
        fail("%s: expected a file, found a device, FIFO or socket", path.c_str());
    }
    if (lstat(path.c_str(), &st) == 0)
        fail("%s: this is a link to something that is not there. HINT: get the file again, or remove the link", path.c_str());
    return false;
}

inline bool is_directory(const std::string& path) {
    struct stat st;
    return stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

// A file's size and time of change when it was first mapped, and where its bytes lie: what a lost page is looked up in.
struct FileStamp {
    off_t size;
    struct timespec time;
    const char* data = nullptr;
    int open = 0;                   // mappings
    const char* changed = nullptr;  // what was found to have become of it, or null
};
inline std::map<std::string, FileStamp>& file_stamps() {
    static std::map<std::string, FileStamp>* all = new std::map<std::string, FileStamp>;  // a signal may come while the program ends
    return *all;
}

inline void file_compare(const std::string& path, FileStamp& stamp) {
    struct stat st;
    if (stat(path.c_str(), &st) != 0) stamp.changed = "went away";
    else if (st.st_size != stamp.size) stamp.changed = "changed its size";
    else if (st.st_mtim.tv_sec != stamp.time.tv_sec || st.st_mtim.tv_nsec != stamp.time.tv_nsec) stamp.changed = "was written to";
}

// Every file must have been as it was when it was first mapped, as long as it was. Call at the end, before a result is given.
inline void files_unchanged_or_fail() {
    for (auto& [path, stamp] : file_stamps()) {
        if (stamp.open > 0) file_compare(path, stamp);
        if (stamp.changed)
            fail("%s: the file %s while it was in use, so there is no result. HINT: leave a run's files alone until it ends, and run this "
                 "again",
                 path.c_str(), stamp.changed);
    }
}

inline void (*lost_file_cleanup)() = nullptr;

// A page of a mapped file that can't be read, for the file became shorter or its disk failed, is the signal SIGBUS. It comes where
// the page is touched, so nothing is half-done here, and the stamps are only ever changed by the thread that opens files.
inline void lost_file_handler(int, siginfo_t* info, void*) {
    const char* at = (const char*)info->si_addr;
    std::string name = "a file";
    for (const auto& [path, stamp] : file_stamps())
        if (stamp.data && at >= stamp.data && at < stamp.data + stamp.size + 4096) name = path;
    const std::string sentence = "qwen3: " + printable(name) + ": a part of it can't be read any more: it became shorter while it was in "
                                 "use, or its disk failed. HINT: leave a run's files alone until it ends\n";
    if (write(STDERR_FILENO, sentence.data(), sentence.size()) < 0) _exit(1);
    if (lost_file_cleanup) lost_file_cleanup();
    _exit(1);
}

// Call once: a lost page then ends the program with a sentence, after `cleanup` (may be null).
inline void fail_on_lost_files(void (*cleanup)()) {
    lost_file_cleanup = cleanup;
    struct sigaction action = {};
    action.sa_sigaction = lost_file_handler;
    action.sa_flags = SA_SIGINFO | SA_RESETHAND;
    sigaction(SIGBUS, &action, nullptr);
}

// A regular file's bytes, mapped read-only until the struct goes out of scope. Move-only; an empty file has size 0.
struct MappedFile {
    std::string path;
    const char* data = "";  // [size] bytes
    size_t size = 0;

    MappedFile() = default;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    MappedFile(MappedFile&& other) noexcept { swap(other); }
    MappedFile& operator=(MappedFile&& other) noexcept {
        swap(other);
        return *this;
    }
    ~MappedFile() {
        if (size > 0) munmap(const_cast<char*>(data), size);
        const auto found = file_stamps().find(path);
        if (found == file_stamps().end()) return;
        FileStamp& stamp = found->second;
        if (stamp.data == data) stamp.data = nullptr;
        stamp.open--;
        file_compare(path, stamp);
    }
    explicit MappedFile(const std::string& file) : path(file) {
        int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // O_NONBLOCK: opening a FIFO must not hang
        if (fd < 0) fail("%s: the file can't be opened: %s", path.c_str(), strerror(errno));
        struct stat st;
        int error = fstat(fd, &st) != 0 ? errno : 0;
        if (error == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
            void* address = mmap(nullptr, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
            if (address == MAP_FAILED) {
                error = errno;
            } else {
                data = (const char*)address;
                size = (size_t)st.st_size;
            }
        }
        close(fd);
        if (error != 0) fail("%s: the file can't be mapped into memory: %s", path.c_str(), strerror(error));
        if (S_ISDIR(st.st_mode)) fail("%s: expected a file, found a directory", path.c_str());
        if (!S_ISREG(st.st_mode)) fail("%s: expected a regular file, found a device or pipe", path.c_str());
        FileStamp& stamp = file_stamps().insert({path, {st.st_size, st.st_mtim}}).first->second;  // the first one counts
        file_compare(path, stamp);
        stamp.data = data, stamp.open++;
    }

    void swap(MappedFile& other) noexcept {
        std::swap(path, other.path);
        std::swap(data, other.data);
        std::swap(size, other.size);
    }
};

// The text of a file. A byte-order mark, which some editors put before it, is no part of it. Every reader of text begins here.
inline std::string_view file_text(const MappedFile& file) {
    std::string_view text(file.data, file.size);
    if (text.compare(0, 3, "\xEF\xBB\xBF") == 0) text.remove_prefix(3);
    return text;
}

// Whether a line is nothing but white space: layout, no content.
inline bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos; }

// Offset of the first byte of text [n] that isn't part of a well-formed UTF-8 character, or std::string::npos. Overlong
// forms, surrogates and values above U+10FFFF are not well-formed.
inline size_t utf8_invalid_at(const char* text, size_t n) {
    const unsigned char* s = (const unsigned char*)text;
    size_t i = 0;
    while (i < n) {
        uint64_t eight;
        if (i + 8 <= n && (memcpy(&eight, s + i, 8), (eight & 0x8080808080808080u) == 0)) {
            i += 8;  // eight ASCII characters at once
            continue;
        }
        if (s[i] < 0x80) {
            i++;
            continue;
        }
        // The lead byte fixes the length, and the range of the second byte excludes overlong forms and surrogates.
        size_t length = s[i] >= 0xF0 ? 4 : s[i] >= 0xE0 ? 3 : 2;
        if (s[i] < 0xC2 || s[i] > 0xF4 || i + length > n) return i;
        unsigned lowest = s[i] == 0xE0 ? 0xA0 : s[i] == 0xF0 ? 0x90 : 0x80;
        unsigned highest = s[i] == 0xED ? 0x9F : s[i] == 0xF4 ? 0x8F : 0xBF;
        if (s[i + 1] < lowest || s[i + 1] > highest) return i;
        for (size_t k = 2; k < length; k++) {
            if ((s[i + k] & 0xC0) != 0x80) return i;
        }
        i += length;
    }
    return std::string::npos;
}

// A descriptor of this program that is open for writing to what `path` names (/dev/stdout, the log of a shell's 3>>log), or -1. Opened
// again, such a file would lose what was written to it.
inline int open_descriptor_of(const std::string& path) {
    struct stat file, other;
    if (stat(path.c_str(), &file) != 0) return -1;
    for (int fd = 1; fd < 256; fd++) {
        if (fstat(fd, &other) != 0 || other.st_dev != file.st_dev || other.st_ino != file.st_ino) continue;
        if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY) return fd;
    }
    return -1;
}

// A new file of which every written byte is checked. Closing it is part of the check: some disks report an error only
// then. What is open for writing already is gone on with.
struct OutputFile {
    std::string path;
    int fd = -1;
    size_t written = 0;

    explicit OutputFile(const std::string& path) : path(path) {
        const int same = open_descriptor_of(path);
        fd = same >= 0 ? dup(same) : open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd < 0) fail("%s: the file can't be created: %s", path.c_str(), strerror(errno));
    }
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;
    ~OutputFile() {
        if (fd >= 0) ::close(fd);
    }

    void write(const void* bytes, size_t n) {
        const size_t total = written + n;
        for (const char* p = (const char*)bytes; written < total;) {
            ssize_t step = ::write(fd, p, std::min(total - written, (size_t)1 << 30));
            if (step < 0 && errno == EINTR) continue;
            if (step <= 0)
                fail("%s: writing byte %zu of at least %zu failed: %s. HINT: is there space left on the disk?",
                     path.c_str(), written, total, step < 0 ? strerror(errno) : "nothing was written");
            p += step;
            written += (size_t)step;
        }
    }

    void close() {
        int status = ::close(fd);
        fd = -1;
        if (status != 0)
            fail("%s: the last of %zu bytes could not be written: %s. HINT: is there space left on the disk?",
                 path.c_str(), written, strerror(errno));
    }
};

inline void write_file(const std::string& path, const std::string& text) {
    OutputFile file(path);
    file.write(text.data(), text.size());
    file.close();
}
