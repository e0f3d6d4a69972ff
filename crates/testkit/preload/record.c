/* Records what a process does to the files below some folders, so that a power cut can be replayed afterwards.
 *
 *     cc -shared -fPIC -O2 -o record.so record.c -lpthread
 *     LD_PRELOAD=record.so REHOME_RECORD=FILE REHOME_RECORD_ROOTS=FOLDER:FOLDER program
 *
 * FILE gets one record for each operation, right after it was made and before its caller goes on; one lock keeps operations of
 * several threads apart, so the order of the records is the order of the operations. With REHOME_RECORD_JOIN=1 a second program
 * adds its own to the same file. Files are named by inode, entries of directories by the directory's inode and a name.
 *
 * A record: u32 length of all of it, u32 kind, u64 a, b, c, u32 lengths of two names and of data, then these. Kinds:
 *   1 create      a directory, b inode, c mode, name
 *   2 write       a inode, b offset, c modification time after it in nanoseconds, data
 *   3 truncate    a inode, b size, c as with write
 *   4 fsync       a inode, b 1 for fdatasync
 *   5 rename      a directory and name, b directory and second name, c 1 where the two changed places
 *   6 unlink      a directory, name
 *   7 link        c inode, b directory, second name
 *   8 mkdir       a directory, b inode, c mode, name
 *   9 mtime       a inode, b seconds, c nanoseconds (all bits set: now)
 *  10 sync        of everything
 *  11 there       at the beginning: a directory, b inode, c mode, name (the path of a root)
 *  12 unknown     name: an operation that changes files and that is not understood here
 *
 * System calls are made directly, so a program that does so itself is not seen. Files that end in -shm (an index that SQLite
 * makes anew) are left out. Programs that the process starts are not recorded.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, FSYNC, RENAME, UNLINK, LINK, MKDIR, MTIME, SYNC, THERE, UNKNOWN };
enum { MAX_ROOTS = 4, MAX_FDS = 65536, LOG_FD = 900 };

struct record {
    uint32_t length, kind;
    uint64_t a, b, c;
    uint32_t name, name2, data;
} __attribute__((packed));

static char roots[MAX_ROOTS][PATH_MAX];
static int root_count, log_fd = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* For each descriptor: 0 not known, 1 below a root, 2 elsewhere. */
static unsigned char known[MAX_FDS];

static void put(uint32_t kind, uint64_t a, uint64_t b, uint64_t c, const char *name, const char *name2, const struct iovec *data,
                int count, size_t length) {
    struct record record = {0, kind, a, b, c, name ? strlen(name) : 0, name2 ? strlen(name2) : 0, length};
    struct iovec parts[67];
    int used = 0;
    record.length = sizeof record + record.name + record.name2 + length;
    parts[used++] = (struct iovec){&record, sizeof record};
    if (record.name) parts[used++] = (struct iovec){(void *)name, record.name};
    if (record.name2) parts[used++] = (struct iovec){(void *)name2, record.name2};
    for (int i = 0; i < count && length; i++) {
        size_t part = data[i].iov_len < length ? data[i].iov_len : length;
        if (part) parts[used++] = (struct iovec){data[i].iov_base, part};
        length -= part;
    }
    if (syscall(SYS_writev, log_fd, parts, used) != (long)record.length) abort();
}

static void note(uint32_t kind, uint64_t a, uint64_t b, uint64_t c, const char *name, const char *name2) {
    put(kind, a, b, c, name, name2, NULL, 0, 0);
}

static int below_root(const char *path) {
    for (int i = 0; i < root_count; i++) {
        size_t length = strlen(roots[i]);
        if (strncmp(path, roots[i], length) == 0 && (path[length] == 0 || path[length] == '/')) return 1;
    }
    return 0;
}

static int ends_in_shm(const char *path) {
    size_t length = strlen(path);
    return length > 4 && strcmp(path + length - 4, "-shm") == 0;
}

/* Whether a descriptor leads below a root. */
static int leads_here(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    char *deleted = strstr(path, " (deleted)");
    if (deleted) *deleted = 0;
    return below_root(path) && !ends_in_shm(path);
}

static int is_ours(int fd) {
    if (log_fd < 0 || fd < 0 || fd == log_fd) return 0;
    if (fd >= MAX_FDS) return leads_here(fd);
    if (known[fd] == 0) known[fd] = leads_here(fd) ? 1 : 2;
    return known[fd] == 1;
}

static void forget(int fd) {
    if (fd >= 0 && fd < MAX_FDS) known[fd] = 0;
}

static uint64_t inode(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 ? found.st_ino : 0;
}

static uint64_t modified(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 ? found.st_mtim.tv_sec * 1000000000ull + found.st_mtim.tv_nsec : 0;
}

/* The directory in which a name is: its inode, and the name's last part. 0 where it is not ours. */
static uint64_t parent(int at, const char *path, char *name) {
    char folder[PATH_MAX];
    if (log_fd < 0 || path == NULL || strlen(path) >= PATH_MAX) return 0;
    strcpy(folder, path);
    for (size_t end = strlen(folder); end > 1 && folder[end - 1] == '/'; end--) folder[end - 1] = 0;
    char *slash = strrchr(folder, '/');
    strcpy(name, slash ? slash + 1 : folder);
    if (slash == folder) slash[1] = 0;
    else if (slash) *slash = 0;
    else strcpy(folder, ".");
    int saved = errno;
    int fd = syscall(SYS_openat, at, folder, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    uint64_t found = 0;
    if (fd >= 0) {
        if (leads_here(fd) && !ends_in_shm(name)) found = inode(fd);
        syscall(SYS_close, fd);
    }
    errno = saved;
    return found;
}

static int stat_at(int at, const char *path, struct stat *found) {
    return fstatat(at, path, found, AT_SYMLINK_NOFOLLOW);
}

/* Before an operation, and after it: errno stays what the operation set. */
static void begin(void) { pthread_mutex_lock(&lock); }
static void end(void) { pthread_mutex_unlock(&lock); }

static void unknown_if(int ours, const char *what) {
    if (!ours) return;
    begin();
    note(UNKNOWN, 0, 0, 0, what, NULL);
    end();
}

static void tree(uint64_t folder, const char *path, const char *name) {
    struct stat found;
    if (lstat(path, &found) != 0 || ends_in_shm(path)) return;
    note(THERE, folder, found.st_ino, found.st_mode, name, NULL);
    if (!S_ISDIR(found.st_mode)) return;
    DIR *directory = opendir(path);
    if (directory == NULL) return;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char below[PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (snprintf(below, sizeof below, "%s/%s", path, entry->d_name) < (int)sizeof below) tree(found.st_ino, below, entry->d_name);
    }
    closedir(directory);
}

__attribute__((constructor)) static void start(void) {
    const char *file = getenv("REHOME_RECORD"), *folders = getenv("REHOME_RECORD_ROOTS");
    unsetenv("LD_PRELOAD");
    if (file == NULL || folders == NULL) return;
    int fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) abort();
    int high = fcntl(fd, F_DUPFD_CLOEXEC, LOG_FD);
    if (high < 0) abort();
    syscall(SYS_close, fd);
    char copy[MAX_ROOTS * PATH_MAX], *place = NULL;
    if (strlen(folders) >= sizeof copy) abort();
    strcpy(copy, folders);
    for (char *one = strtok_r(copy, ":", &place); one && root_count < MAX_ROOTS; one = strtok_r(NULL, ":", &place))
        if (realpath(one, roots[root_count])) root_count++;
    log_fd = high;
    if (getenv("REHOME_RECORD_JOIN") == NULL)
        for (int i = 0; i < root_count; i++) tree(0, roots[i], roots[i]);
}

/* --- opening and closing ------------------------------------------------------------------------------------------------ */

static int opened(int at, const char *path, int flags, mode_t mode) {
    char name[PATH_MAX];
    struct stat found;
    if (log_fd < 0 || (flags & (O_CREAT | O_TRUNC | O_TMPFILE)) == 0 || path == NULL) {
        int fd = syscall(SYS_openat, at, path, flags, mode);
        forget(fd);
        return fd;
    }
    begin();
    uint64_t folder = parent(at, path, name);
    int was_there = folder && stat_at(at, path, &found) == 0;
    int fd = syscall(SYS_openat, at, path, flags, mode);
    int saved = errno;
    forget(fd);
    if (fd >= 0 && folder && fstat(fd, &found) == 0) {
        if ((flags & O_TMPFILE) == O_TMPFILE) note(CREATE, 0, found.st_ino, found.st_mode, NULL, NULL);
        else if (!was_there && (flags & O_CREAT)) note(CREATE, folder, found.st_ino, found.st_mode, name, NULL);
        else if ((flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY) note(TRUNCATE, found.st_ino, 0, modified(fd), NULL, NULL);
    } else if (fd >= 0 && (flags & O_TMPFILE) == O_TMPFILE && leads_here(fd)) {
        note(CREATE, 0, inode(fd), 0600, NULL, NULL);
    }
    end();
    errno = saved;
    return fd;
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open(const char *path, int flags, ...) { MODE_OF(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags) return opened(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE_OF(flags) return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE_OF(flags) return opened(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    if (fd == log_fd && fd >= 0) { errno = EBADF; return -1; }
    forget(fd);
    return syscall(SYS_close, fd);
}
int dup2(int from, int to) { forget(to); return from == to ? (int)syscall(SYS_fcntl, from, F_GETFD) < 0 ? -1 : to : (int)syscall(SYS_dup3, from, to, 0); }
int dup3(int from, int to, int flags) { forget(to); return syscall(SYS_dup3, from, to, flags); }

/* --- contents ----------------------------------------------------------------------------------------------------------- */

static ssize_t wrote(int fd, ssize_t count, off_t offset, const struct iovec *parts, int number) {
    int saved = errno;
    if (count > 0) {
        if (offset < 0) offset = syscall(SYS_lseek, fd, 0, SEEK_CUR) - count;
        put(WRITE, inode(fd), offset, modified(fd), NULL, NULL, parts, number, count);
    }
    errno = saved;
    return count;
}

ssize_t write(int fd, const void *octets, size_t count) {
    if (!is_ours(fd)) return syscall(SYS_write, fd, octets, count);
    begin();
    struct iovec part = {(void *)octets, count};
    ssize_t done = wrote(fd, syscall(SYS_write, fd, octets, count), -1, &part, 1);
    end();
    return done;
}
ssize_t writev(int fd, const struct iovec *parts, int number) {
    if (!is_ours(fd)) return syscall(SYS_writev, fd, parts, number);
    if (number > 64) number = 64;
    begin();
    ssize_t done = wrote(fd, syscall(SYS_writev, fd, parts, number), -1, parts, number);
    end();
    return done;
}
ssize_t pwrite64(int fd, const void *octets, size_t count, off64_t offset) {
    if (!is_ours(fd)) return syscall(SYS_pwrite64, fd, octets, count, offset);
    begin();
    struct iovec part = {(void *)octets, count};
    ssize_t done = wrote(fd, syscall(SYS_pwrite64, fd, octets, count, offset), offset, &part, 1);
    end();
    return done;
}
ssize_t pwrite(int fd, const void *octets, size_t count, off_t offset) { return pwrite64(fd, octets, count, offset); }
ssize_t pwritev64(int fd, const struct iovec *parts, int number, off64_t offset) {
    if (number > 64) number = 64;
    if (!is_ours(fd)) return syscall(SYS_pwritev, fd, parts, number, offset, 0);
    begin();
    ssize_t done = wrote(fd, syscall(SYS_pwritev, fd, parts, number, offset, 0), offset, parts, number);
    end();
    return done;
}
ssize_t pwritev(int fd, const struct iovec *parts, int number, off_t offset) { return pwritev64(fd, parts, number, offset); }

int ftruncate64(int fd, off64_t size) {
    if (!is_ours(fd)) return syscall(SYS_ftruncate, fd, size);
    begin();
    int done = syscall(SYS_ftruncate, fd, size), saved = errno;
    if (done == 0) note(TRUNCATE, inode(fd), size, modified(fd), NULL, NULL);
    end();
    errno = saved;
    return done;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

/* What copies between descriptors is refused, so that the program reads and writes instead. */
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *into, size_t count, unsigned flags) {
    if (is_ours(to)) { errno = ENOSYS; return -1; }
    return syscall(SYS_copy_file_range, from, at, to, into, count, flags);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t count) {
    if (is_ours(to)) { errno = ENOSYS; return -1; }
    return syscall(SYS_sendfile, to, from, at, count);
}
ssize_t sendfile(int to, int from, off_t *at, size_t count) { return sendfile64(to, from, at, count); }
ssize_t splice(int from, off64_t *at, int to, off64_t *into, size_t count, unsigned flags) {
    if (is_ours(to)) { errno = EINVAL; return -1; }
    return syscall(SYS_splice, from, at, to, into, count, flags);
}
int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    unknown_if(is_ours(fd), "fallocate");
    return syscall(SYS_fallocate, fd, mode, offset, length);
}
int fallocate(int fd, int mode, off_t offset, off_t length) { return fallocate64(fd, mode, offset, length); }
int posix_fallocate64(int fd, off64_t offset, off64_t length) { return fallocate64(fd, 0, offset, length) == 0 ? 0 : errno; }
int posix_fallocate(int fd, off_t offset, off_t length) { return posix_fallocate64(fd, offset, length); }

/* --- syncing ------------------------------------------------------------------------------------------------------------ */

static int synced(int fd, long call, int data_only) {
    if (!is_ours(fd)) return syscall(call, fd);
    begin();
    int done = syscall(call, fd), saved = errno;
    if (done == 0) note(FSYNC, inode(fd), data_only, 0, NULL, NULL);
    end();
    errno = saved;
    return done;
}
int fsync(int fd) { return synced(fd, SYS_fsync, 0); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync, 1); }
int syncfs(int fd) {
    int done = syscall(SYS_syncfs, fd), saved = errno;
    if (done == 0 && log_fd >= 0) {
        begin();
        note(SYNC, 0, 0, 0, NULL, NULL);
        end();
    }
    errno = saved;
    return done;
}
void sync(void) {
    syscall(SYS_sync);
    if (log_fd < 0) return;
    begin();
    note(SYNC, 0, 0, 0, NULL, NULL);
    end();
}

/* --- names -------------------------------------------------------------------------------------------------------------- */

static int renamed(int at, const char *from, int to_at, const char *to, unsigned flags) {
    char name[PATH_MAX], name2[PATH_MAX];
    begin();
    uint64_t a = parent(at, from, name), b = parent(to_at, to, name2);
    int done = syscall(SYS_renameat2, at, from, to_at, to, flags), saved = errno;
    if (done == 0 && a && b) note(RENAME, a, b, flags & RENAME_EXCHANGE ? 1 : 0, name, name2);
    else if (done == 0 && (a || b)) note(UNKNOWN, 0, 0, 0, "rename across the border", NULL);
    end();
    errno = saved;
    return done;
}
int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int at, const char *from, int to_at, const char *to) { return renamed(at, from, to_at, to, 0); }
int renameat2(int at, const char *from, int to_at, const char *to, unsigned flags) { return renamed(at, from, to_at, to, flags); }

int unlinkat(int at, const char *path, int flags) {
    char name[PATH_MAX];
    begin();
    uint64_t folder = parent(at, path, name);
    int done = syscall(SYS_unlinkat, at, path, flags), saved = errno;
    if (done == 0 && folder) note(UNLINK, folder, 0, 0, name, NULL);
    end();
    errno = saved;
    return done;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int linkat(int at, const char *from, int to_at, const char *to, int flags) {
    char name[PATH_MAX];
    struct stat found;
    begin();
    uint64_t folder = parent(to_at, to, name);
    int done = syscall(SYS_linkat, at, from, to_at, to, flags), saved = errno;
    if (done == 0 && folder && stat_at(to_at, to, &found) == 0) note(LINK, 0, folder, found.st_ino, NULL, name);
    end();
    errno = saved;
    return done;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int symlinkat(const char *target, int at, const char *path) {
    char name[PATH_MAX];
    unknown_if(parent(at, path, name) != 0, "symlink");
    return syscall(SYS_symlinkat, target, at, path);
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

int mkdirat(int at, const char *path, mode_t mode) {
    char name[PATH_MAX];
    struct stat found;
    begin();
    uint64_t folder = parent(at, path, name);
    int done = syscall(SYS_mkdirat, at, path, mode), saved = errno;
    if (done == 0 && folder && stat_at(at, path, &found) == 0) note(MKDIR, folder, found.st_ino, found.st_mode, name, NULL);
    end();
    errno = saved;
    return done;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* --- times -------------------------------------------------------------------------------------------------------------- */

static void timed(uint64_t file, const struct timespec *times) {
    if (times && times[1].tv_nsec == UTIME_OMIT) return;
    if (times == NULL || times[1].tv_nsec == UTIME_NOW) note(MTIME, file, UINT64_MAX, UINT64_MAX, NULL, NULL);
    else note(MTIME, file, times[1].tv_sec, times[1].tv_nsec, NULL, NULL);
}
int futimens(int fd, const struct timespec times[2]) {
    if (!is_ours(fd)) return syscall(SYS_utimensat, fd, NULL, times, 0);
    begin();
    int done = syscall(SYS_utimensat, fd, NULL, times, 0), saved = errno;
    if (done == 0) timed(inode(fd), times);
    end();
    errno = saved;
    return done;
}
int utimensat(int at, const char *path, const struct timespec times[2], int flags) {
    char name[PATH_MAX];
    struct stat found;
    /* The compiler believes that nobody asks without a path, as utimensat(fd, NULL, …) does. */
    const char *volatile given = path;
    if (given == NULL) return futimens(at, times);
    begin();
    uint64_t folder = parent(at, path, name);
    int done = syscall(SYS_utimensat, at, path, times, flags), saved = errno;
    if (done == 0 && folder && stat_at(at, path, &found) == 0) timed(found.st_ino, times);
    end();
    errno = saved;
    return done;
}
