/* The slow path of a check, x86-64. It keeps every register, so that the checked loop may leave its values where they are.
 *
 * The compiler calls asio_pulse_out_of_fuel from any place: the stack need not be aligned. Functions with checks do not use the
 * red zone (the plugins see to it). asio_pulse_refuel is compiled without vector registers, so the common case, in which no
 * hook is installed, saves the general registers only. asio_pulse_checkpoint_saved calls what may use the others. */

	.section .tbss,"awT",@nobits
	.weak asio_pulse_fuel
	.type asio_pulse_fuel, @object
	.size asio_pulse_fuel, 4
	.balign 4
asio_pulse_fuel:
	.zero 4

	.weak asio_pulse_no_chunks
	.type asio_pulse_no_chunks, @object
	.size asio_pulse_no_chunks, 4
	.balign 4
asio_pulse_no_chunks:
	.zero 4

/* The hook: one a process. */
	.section .bss.asio_pulse_checkpoint_cell,"aw",@nobits
	.globl asio_pulse_checkpoint_cell
	.type asio_pulse_checkpoint_cell, @gnu_unique_object
	.size asio_pulse_checkpoint_cell, 8
	.balign 8
asio_pulse_checkpoint_cell:
	.zero 8

	.text
	.globl asio_pulse_out_of_fuel
	.hidden asio_pulse_out_of_fuel
	.hidden asio_pulse_refuel
	.type asio_pulse_out_of_fuel, @function
	.balign 16
asio_pulse_out_of_fuel:
	.cfi_startproc
	push %rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	mov %rsp, %rbp
	.cfi_def_cfa_register %rbp
	push %rax
	push %rcx
	push %rdx
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	and $-16, %rsp
	cld
	mov 8(%rbp), %rdi
	call asio_pulse_refuel
	lea -72(%rbp), %rsp
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rdx
	pop %rcx
	pop %rax
	pop %rbp
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_endproc
	.size asio_pulse_out_of_fuel, .-asio_pulse_out_of_fuel

/* What a loop calls that counted a chunk of work (decisions.hpp, chunk_work) by itself: the check, out of line, because the size of code counts
 * more than 2 ns in 500. */
	.globl asio_pulse_chunk_done
	.hidden asio_pulse_chunk_done
	.type asio_pulse_chunk_done, @function
	.balign 16
asio_pulse_chunk_done:
	.cfi_startproc
	push %rax
	.cfi_def_cfa_offset 16
	mov asio_pulse_fuel@gottpoff(%rip), %rax
	subl $4096, %fs:(%rax)
	pop %rax
	.cfi_def_cfa_offset 8
	js asio_pulse_out_of_fuel
	ret
	.cfi_endproc
	.size asio_pulse_chunk_done, .-asio_pulse_chunk_done

/* void asio_pulse_checkpoint_saved(void (*f)(void*), void* argument): calls f with the x87, SSE, AVX and AVX-512 registers saved
 * on the stack, as far as this CPU and kernel have them. Which instruction saves them, and how many bytes it writes, is in
 * asio_pulse_checkpoint_save (refuel.c). */
	.globl asio_pulse_checkpoint_saved
	.hidden asio_pulse_checkpoint_saved
	.hidden asio_pulse_checkpoint_save
	.type asio_pulse_checkpoint_saved, @function
	.balign 16
asio_pulse_checkpoint_saved:
	.cfi_startproc
	push %rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	mov %rsp, %rbp
	.cfi_def_cfa_register %rbp
	push %rbx
	.cfi_offset %rbx, -24
	push %r12
	.cfi_offset %r12, -32
	mov %rdi, %r11
	mov %rsi, %r10
	mov asio_pulse_checkpoint_save(%rip), %ebx      /* the method */
	mov asio_pulse_checkpoint_save+4(%rip), %eax    /* the bytes */
	mov asio_pulse_checkpoint_save+8(%rip), %r12d   /* the components */
	sub %rax, %rsp
	and $-64, %rsp
	test %ebx, %ebx
	jz 1f
	/* The header must be zero: xsave merges into it, and xrstor checks the rest of it. */
	xor %edx, %edx
	mov %rdx, 512(%rsp)
	mov %rdx, 520(%rsp)
	mov %rdx, 528(%rsp)
	mov %rdx, 536(%rsp)
	mov %rdx, 544(%rsp)
	mov %rdx, 552(%rsp)
	mov %rdx, 560(%rsp)
	mov %rdx, 568(%rsp)
	mov %r12d, %eax
	cmp $2, %ebx
	je 2f
	xsave64 (%rsp)
	jmp 3f
2:	xsavec64 (%rsp)
3:	test $4, %r12b
	jz 4f
	vzeroupper
	jmp 4f
1:	fxsave64 (%rsp)
4:	emms                                            /* the ABI wants an empty x87 stack at a call */
	mov %r10, %rdi
	call *%r11
	test %ebx, %ebx
	jz 5f
	xor %edx, %edx
	mov %r12d, %eax
	xrstor64 (%rsp)
	jmp 6f
5:	fxrstor64 (%rsp)
6:	lea -16(%rbp), %rsp
	pop %r12
	.cfi_restore %r12
	pop %rbx
	.cfi_restore %rbx
	pop %rbp
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_endproc
	.size asio_pulse_checkpoint_saved, .-asio_pulse_checkpoint_saved

/* What the linker says is missing when checked objects are linked without this library. The objects refer to it, nothing reads it.
 * It has a place of its own: stacks show the functions' names. */
	.section .rodata.asio_pulse_checkpoint_stub,"a",@progbits
	.globl ERROR_link_asio_pulse_checkpoint_stub_to_code_that_was_compiled_with_checkpoints
	.hidden ERROR_link_asio_pulse_checkpoint_stub_to_code_that_was_compiled_with_checkpoints
	.type ERROR_link_asio_pulse_checkpoint_stub_to_code_that_was_compiled_with_checkpoints, @object
	.size ERROR_link_asio_pulse_checkpoint_stub_to_code_that_was_compiled_with_checkpoints, 1
ERROR_link_asio_pulse_checkpoint_stub_to_code_that_was_compiled_with_checkpoints:
	.byte 0

	.section .note.GNU-stack,"",@progbits
