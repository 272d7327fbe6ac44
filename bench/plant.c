/* A Modbus TCP plant that is never the bottleneck: one epoll loop, every reply one memcpy.
 *
 *   plant MODE UNITS REGISTERS PORTS READS_LOG WRITES_LOG
 *
 * MODE all or tenth (bench/formula.py has the values and why they can be checked). Binds PORTS ports and a
 * control port on loopback, chosen by the kernel, and prints them as one line of JSON. Every unit answers on
 * every port. A connection to the control port is answered with the counters as one line of JSON.
 * Logs are binary, little endian, "-" for none; times are CLOCK_MONOTONIC in ns, taken before the reply leaves:
 *   READS_LOG   u16 unit, u16 0, u32 read, u64 time     one per read of the data that began at address 0
 *   WRITES_LOG  u16 unit, u16 address, u16 value, u16 0, u64 time     one per register written, unbuffered
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PORTS_MAX = 64, REGISTERS_MAX = 123, WRITABLE_AT = 1000, WRITABLE = 16,
       INPUT_MAX = 16384, OUTPUT_MAX = 400000 /* replies to a full input */, ADU_MAX = 260 };
enum { MODULUS = 65413, UNIT_STEP = 571, RESIDUE_STEP = 6551, READ_STEP = 7919 };  /* bench/formula.py */

struct client { int fd; size_t have, out, sent; int waits_for_room; uint8_t in[INPUT_MAX], to[OUTPUT_MAX]; };

static uint16_t series[65536];             /* big endian, ready for the wire */
static uint8_t image[256][2 * REGISTERS_MAX];  /* what each unit shows now */
static uint16_t writable[256][WRITABLE];   /* big endian */
static uint32_t reads[256];
static int tenth, units, registers;
static uint64_t total_reads, total_registers, total_writes, total_refused;
static FILE *reads_log, *writes_log;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) { perror(what); exit(1); }

static void show_tenth(int unit, int residue, uint32_t version) {
    uint64_t at = ((uint64_t)unit * UNIT_STEP + (uint64_t)residue * RESIDUE_STEP + (uint64_t)version * READ_STEP)
                  % MODULUS;
    for (int i = residue; i < registers; i += 10, at++) memcpy(image[unit] + 2 * i, &series[at], 2);
}

static void next_read(int unit) {
    uint32_t read = ++reads[unit];
    if (tenth) {
        int residue = read % 10;
        show_tenth(unit, residue, (read + 10 - residue) / 10);
    } else {
        uint64_t at = ((uint64_t)unit * UNIT_STEP + (uint64_t)read * READ_STEP) % MODULUS;
        memcpy(image[unit], series + at, 2 * (size_t)registers);
    }
    if (reads_log) {
        struct { uint16_t unit, zero; uint32_t read; uint64_t t; } record = {unit, 0, read, now_ns()};
        fwrite(&record, sizeof record, 1, reads_log);
    }
}

static void wrote(int unit, int address, uint16_t big) {
    writable[unit][address - WRITABLE_AT] = big;
    total_writes++;
    if (writes_log) {
        struct { uint16_t unit, address, value, zero; uint64_t t; } record =
            {unit, address, ntohs(big), 0, now_ns()};
        fwrite(&record, sizeof record, 1, writes_log);
        fflush(writes_log);
    }
}

/* Answer the request in `q` (MBAP and PDU, `n` bytes) into `a`; how many bytes. */
static size_t answer(const uint8_t *q, size_t n, uint8_t *a) {
    int unit = q[6], function = q[7], exception = 0;
    size_t pdu = 0;
    unsigned at = n >= 10 ? q[8] << 8 | q[9] : 0, count = n >= 12 ? q[10] << 8 | q[11] : 0;
    memcpy(a, q, 7);
    a[7] = (uint8_t)function;
    if (unit < 1 || unit > units) exception = 11;
    else if (function == 3 || function == 4) {
        if (n != 12 || count < 1 || count > 125) exception = 3;
        else if (at + count <= (unsigned)registers) {
            if (at == 0) next_read(unit);
            memcpy(a + 9, image[unit] + 2 * at, 2 * count);
        } else if (at >= WRITABLE_AT && at + count <= WRITABLE_AT + WRITABLE)
            memcpy(a + 9, &writable[unit][at - WRITABLE_AT], 2 * count);
        else exception = 2;
        if (!exception) {
            a[8] = (uint8_t)(2 * count);
            pdu = 2 + 2 * count;
            total_reads++;
            total_registers += count;
        }
    } else if (function == 6) {
        if (n != 12) exception = 3;
        else if (at < WRITABLE_AT || at >= WRITABLE_AT + WRITABLE) exception = 2;
        else {
            uint16_t big;
            memcpy(&big, q + 10, 2);
            wrote(unit, (int)at, big);
            memcpy(a + 8, q + 8, 4);
            pdu = 5;
        }
    } else if (function == 16) {
        if (n < 13 || count < 1 || count > 123 || q[12] != 2 * count || n != 13 + 2 * (size_t)count) exception = 3;
        else if (at < WRITABLE_AT || at + count > WRITABLE_AT + WRITABLE) exception = 2;
        else {
            for (unsigned i = 0; i < count; i++) {
                uint16_t big;
                memcpy(&big, q + 13 + 2 * i, 2);
                wrote(unit, (int)(at + i), big);
            }
            memcpy(a + 8, q + 8, 4);
            pdu = 5;
        }
    } else exception = 1;
    if (exception) {
        a[7] = (uint8_t)(function | 0x80);
        a[8] = (uint8_t)exception;
        pdu = 2;
        total_refused++;
    }
    a[4] = (uint8_t)((pdu + 1) >> 8);
    a[5] = (uint8_t)(pdu + 1);
    return 6 + 1 + pdu;
}

static int flush_out(struct client *c) {
    while (c->sent < c->out) {
        ssize_t n = send(c->fd, c->to + c->sent, c->out - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return 1;
        if (n < 0) return -1;
        c->sent += (size_t)n;
    }
    c->out = c->sent = 0;
    return 0;
}

/* Answer what is complete; 0 to go on, -1 to close. */
static int serve(struct client *c) {
    size_t used = 0;
    while (c->have - used >= 8 && OUTPUT_MAX - c->out >= ADU_MAX) {
        const uint8_t *q = c->in + used;
        size_t n = 6 + (size_t)(q[4] << 8 | q[5]);
        if (q[2] || q[3] || n < 8 || n > ADU_MAX) return -1;
        if (c->have - used < n) break;
        c->out += answer(q, n, c->to + c->out);
        used += n;
    }
    memmove(c->in, c->in + used, c->have - used);
    c->have -= used;
    return 0;
}

static int listen_on_loopback(int *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 512)) die("listen");
    getsockname(fd, (struct sockaddr *)&a, &size);
    *port = ntohs(a.sin_port);
    return fd;
}

static void tell_counters(int fd) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    dprintf(fd, "{\"reads\":%llu,\"registers\":%llu,\"writes\":%llu,\"refused\":%llu,\"cpu_us\":%lld,\"t_ns\":%llu}\n",
            (unsigned long long)total_reads, (unsigned long long)total_registers,
            (unsigned long long)total_writes, (unsigned long long)total_refused,
            (long long)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000
                + used.ru_utime.tv_usec + used.ru_stime.tv_usec,
            (unsigned long long)now_ns());
    if (reads_log) fflush(reads_log);
    close(fd);
}

static FILE *open_log(const char *path) {
    if (!strcmp(path, "-")) return NULL;
    FILE *log = fopen(path, "wb");
    if (!log) die(path);
    setvbuf(log, NULL, _IOFBF, 1 << 20);
    return log;
}

int main(int argc, char **argv) {
    if (argc != 7) { fprintf(stderr, "usage: plant all|tenth UNITS REGISTERS PORTS READS_LOG WRITES_LOG\n"); return 2; }
    tenth = !strcmp(argv[1], "tenth");
    units = atoi(argv[2]);
    registers = atoi(argv[3]);
    int ports = atoi(argv[4]);
    if (units < 1 || units > 247 || registers < 1 || registers > REGISTERS_MAX || ports < 1 || ports > PORTS_MAX) {
        fprintf(stderr, "plant: 1..247 units, 1..%d registers, 1..%d ports\n", REGISTERS_MAX, PORTS_MAX);
        return 2;
    }
    reads_log = open_log(argv[5]);
    writes_log = open_log(argv[6]);
    for (unsigned x = 0; x < 65536; x++) series[x] = htons((uint16_t)(x * 40503u + 12345u));
    for (int unit = 1; unit <= units; unit++)
        for (int residue = 0; tenth && residue < 10; residue++) show_tenth(unit, residue, (10 - residue) / 10);

    int epoll = epoll_create1(EPOLL_CLOEXEC), listeners[PORTS_MAX + 1], numbers[PORTS_MAX + 1] = {0};
    for (int i = 0; i <= ports; i++) {
        listeners[i] = listen_on_loopback(&numbers[i]);
        struct epoll_event e = {.events = EPOLLIN, .data.u64 = (uint64_t)i};
        epoll_ctl(epoll, EPOLL_CTL_ADD, listeners[i], &e);
    }
    printf("{\"control\":%d,\"ports\":[", numbers[ports]);
    for (int i = 0; i < ports; i++) printf(i ? ",%d" : "%d", numbers[i]);
    printf("]}\n");
    fflush(stdout);

    for (;;) {
        struct epoll_event ready[64];
        int n = epoll_wait(epoll, ready, 64, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (ready[i].data.u64 <= (uint64_t)ports) {
                int which = (int)ready[i].data.u64, fd = accept4(listeners[which], NULL, NULL, SOCK_NONBLOCK), one = 1;
                if (fd < 0) continue;
                if (which == ports) { tell_counters(fd); continue; }
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                struct client *c = calloc(1, sizeof *c);
                if (!c) die("calloc");
                c->fd = fd;
                struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
                continue;
            }
            struct client *c = ready[i].data.ptr;
            int stuck = flush_out(c);
            if (!stuck) {
                ssize_t got = recv(c->fd, c->in + c->have, INPUT_MAX - c->have, 0);
                if (got == 0 || (got < 0 && errno != EAGAIN)) stuck = -1;
                else {
                    c->have += got > 0 ? (size_t)got : 0;
                    stuck = serve(c) ? -1 : flush_out(c);
                }
            }
            if (stuck < 0) { close(c->fd); free(c); continue; }
            if (stuck != c->waits_for_room) {
                struct epoll_event e = {.events = stuck ? EPOLLOUT : EPOLLIN, .data.ptr = c};
                epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &e);
                c->waits_for_room = stuck;
            }
        }
    }
}
