/*
 * Preloaded into user-mode-linux where the processor has AMX.
 *
 * The kernel takes a process's extended registers (ptrace(2), NT_X86_XSTATE) only whole, and with AMX they are larger than
 * the buffer that Debian's linux.uml (6.1) has for them: it sees EFAULT and kills the guest's init. The registers that it
 * does not know stay as they are here.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

/* One processor, and no handler of a signal comes here: the guest's stacks are too small for it. */
static char whole[16384] __attribute__((aligned(64)));

long ptrace(enum __ptrace_request request, ...)
{
	va_list rest;
	va_start(rest, request);
	pid_t pid = va_arg(rest, pid_t);
	void *address = va_arg(rest, void *);
	void *data = va_arg(rest, void *);
	va_end(rest);
	int is_set = request == PTRACE_SETREGSET;
	if ((!is_set && request != PTRACE_GETREGSET) || address != (void *)NT_X86_XSTATE) {
		/* What is read comes back through the pointer, as glibc's function has it. */
		if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
			long word = 0;
			long failed = syscall(SYS_ptrace, request, pid, address, &word);
			return failed < 0 ? failed : word;
		}
		return syscall(SYS_ptrace, request, pid, address, data);
	}
	struct iovec *known = data;
	struct iovec all = { .iov_base = whole, .iov_len = sizeof(whole) };
	long failed = syscall(SYS_ptrace, PTRACE_GETREGSET, pid, address, &all);
	if (failed < 0)
		return failed;
	if (known->iov_len > all.iov_len)
		known->iov_len = all.iov_len;
	if (!is_set) {
		memcpy(known->iov_base, whole, known->iov_len);
		return 0;
	}
	memcpy(whole, known->iov_base, known->iov_len);
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, address, &all);
}
