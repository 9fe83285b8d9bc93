/* Loaded into user-mode Linux, in place of the C library's ptrace. It mends two things:
 *
 * The processes of the guest are processes of the host under ptrace. If their tracer died alone,
 * they would run on natively, as root of the host: PTRACE_O_EXITKILL ends them with it.
 *
 * Linux 6.1 reserves 2696 bytes for vector registers; where the processor has more of them, the
 * host refuses to set a part. So all are read and set, those beyond the guest's as zero.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	PEEK_TEXT = 1,
	PEEK_USER = 3,
	OLD_SET_OPTIONS = 21,
	SET_OPTIONS = 0x4200,
	GET_REGISTERS = 0x4204,
	SET_REGISTERS = 0x4205,
	OPTION_EXIT_KILL = 1 << 20,
	ALL_VECTORS = 0x202, /* NT_X86_XSTATE */
};

static char vectors[1 << 16];
static size_t host_size = sizeof vectors; /* what the host has, once it told */

static long get_vectors(long pid, struct iovec *wanted)
{
	struct iovec whole = {vectors, sizeof vectors};
	long result = syscall(SYS_ptrace, GET_REGISTERS, pid, ALL_VECTORS, &whole);

	if (result)
		return result;
	host_size = whole.iov_len;
	if (wanted->iov_len > host_size)
		wanted->iov_len = host_size;
	memcpy(wanted->iov_base, vectors, wanted->iov_len);
	return 0;
}

static long set_vectors(long pid, const struct iovec *given)
{
	struct iovec whole = {vectors, host_size};
	size_t size = given->iov_len < sizeof vectors ? given->iov_len : sizeof vectors;

	memcpy(vectors, given->iov_base, size);
	memset(vectors + size, 0, sizeof vectors - size);
	return syscall(SYS_ptrace, SET_REGISTERS, pid, ALL_VECTORS, &whole);
}

/* The system call stores the word that it peeked; the C library returns it. */
static long peek(long request, long pid, long address)
{
	long word;

	if (syscall(SYS_ptrace, request, pid, address, &word))
		return -1;
	errno = 0;
	return word;
}

long ptrace(long request, long pid, long address, long data)
{
	if (request == GET_REGISTERS && address == ALL_VECTORS)
		return get_vectors(pid, (struct iovec *)data);
	if (request == SET_REGISTERS && address == ALL_VECTORS)
		return set_vectors(pid, (const struct iovec *)data);
	if (request >= PEEK_TEXT && request <= PEEK_USER)
		return peek(request, pid, address);
	if (request == OLD_SET_OPTIONS || request == SET_OPTIONS)
		data |= OPTION_EXIT_KILL;
	return syscall(SYS_ptrace, request, pid, address, data);
}
