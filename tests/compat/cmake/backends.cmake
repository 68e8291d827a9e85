# The ways in which Boost.Asio waits on Linux:
#   epoll       the default
#   select      where epoll is switched off
#   io_uring    instead of epoll, from Boost 1.78 on
#   files       io_uring beside epoll, for files only
# The last two need only Debian's liburing. If the kernel or a filter of system calls forbids io_uring, their
# tests are skipped with that reason.
find_library(COMPAT_URING_LIBRARY uring)
find_path(COMPAT_URING_INCLUDE liburing.h)
if(NOT COMPAT_URING_LIBRARY OR NOT COMPAT_URING_INCLUDE)
  add_test(NAME compat.liburing
           COMMAND sh -c "echo 'skipped: liburing is missing (Debian: liburing-dev): nothing was tested on io_uring'; exit 77")
  set_tests_properties(compat.liburing PROPERTIES LABELS compat SKIP_RETURN_CODE 77)
endif()

# compat_has_backend(OUT VERSION BACKEND): whether that Boost can be built for it here.
function(compat_has_backend out version backend)
  set(has TRUE)
  if(backend MATCHES "^(io_uring|files)$")
    if(version VERSION_LESS 1.78 OR NOT COMPAT_URING_LIBRARY OR NOT COMPAT_URING_INCLUDE)
      set(has FALSE)
    endif()
  endif()
  set(${out} ${has} PARENT_SCOPE)
endfunction()

# compat_use_backend(TARGET BACKEND)
function(compat_use_backend target backend)
  if(backend MATCHES "^(select|io_uring)$")
    target_compile_definitions(${target} PRIVATE BOOST_ASIO_DISABLE_EPOLL)
  endif()
  if(backend MATCHES "^(io_uring|files)$")
    target_compile_definitions(${target} PRIVATE BOOST_ASIO_HAS_IO_URING)
    target_include_directories(${target} SYSTEM PRIVATE "${COMPAT_URING_INCLUDE}")
    target_link_libraries(${target} PRIVATE "${COMPAT_URING_LIBRARY}")
  endif()
endfunction()
