/* A wall clock that a test can set, for one program: preloaded (LD_PRELOAD), it stands before the C library's. The time since the boot,
 * by which programs wait and measure, stays what it is. libfaketime does more than that, and less well: under it a sleep until a moment
 * of the monotonic clock fails once the wall clock has been set.
 *
 * REWINDFS_TEST_CLOCK names a file with one number of eight bytes, which may change at any time: milliseconds, times two; what the
 * clock is ahead of the machine's, or, where the number is odd, when it stands still. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MILLI 1000000LL
#define SECOND 1000000000LL

static volatile int64_t *set;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("REWINDFS_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *set, PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED)
        abort();
    set = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && set && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t number = *set, nanos = (number >> 1) * MILLI;
        if (!(number & 1))
            nanos += now->tv_sec * SECOND + now->tv_nsec;
        now->tv_sec = nanos / SECOND;
        now->tv_nsec = nanos % SECOND;
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0)
        return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0)
        return -1;
    if (now)
        *now = exact.tv_sec;
    return exact.tv_sec;
}
