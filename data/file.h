// file.h: raw bytes in and out. A file is memory-mapped read-only, so that gigabytes of weights or text cost nothing
// until they are read; the text in it is checked to be UTF-8 (RFC 3629) before anybody interprets it. A file is written
// with every byte accounted for.
//
// defines: file_exists, is_directory, MappedFile, utf8_invalid_at, OutputFile, write_file
#pragma once
#include "error.h"
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

inline bool file_exists(const std::string& path) {
    struct stat st;
    return stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode);
}

inline bool is_directory(const std::string& path) {
    struct stat st;
    return stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
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
    }

    void swap(MappedFile& other) noexcept {
        std::swap(path, other.path);
        std::swap(data, other.data);
        std::swap(size, other.size);
    }
};

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

// A new file of which every written byte is checked. Closing it is part of the check: some disks report an error only
// then.
struct OutputFile {
    std::string path;
    int fd = -1;
    size_t written = 0;

    explicit OutputFile(const std::string& path) : path(path) {
        fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
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
