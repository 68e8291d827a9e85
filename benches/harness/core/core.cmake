# pulse_bench without its command line, as a library, so that the unit tests can use it if no bench is built.
if(TARGET pulse_bench_core)
  return()
endif()
file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/*.cpp"
     "${CMAKE_CURRENT_LIST_DIR}/catalogue/*.cpp")
add_library(pulse_bench_core STATIC ${sources})
target_include_directories(pulse_bench_core PUBLIC "${CMAKE_CURRENT_LIST_DIR}")
target_link_libraries(pulse_bench_core PUBLIC asio_pulse_json fmt::fmt)
target_compile_features(pulse_bench_core PUBLIC cxx_std_20)
asio_pulse_warnings(pulse_bench_core)

# The page of the report, part of the program.
include("${PROJECT_SOURCE_DIR}/benches/report/report.cmake")
set(template "${PROJECT_BINARY_DIR}/benches/report.html")
asio_pulse_report_page("${template}")
set_source_files_properties(
  "${CMAKE_CURRENT_LIST_DIR}/report_page.cpp"
  PROPERTIES OBJECT_DEPENDS "${template}" COMPILE_DEFINITIONS "PULSE_BENCH_TEMPLATE=\"${template}\"")
string(TOUPPER "${CMAKE_BUILD_TYPE}" build_type)
string(STRIP "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${build_type}}" flags)
target_compile_definitions(
  pulse_bench_core
  PRIVATE "PULSE_BENCH_SOURCE=\"${PROJECT_SOURCE_DIR}/benches\""
          "PULSE_BENCH_PROGRAMS=\"${PROJECT_BINARY_DIR}/benches\""
          "PULSE_BENCH_FLAGS=\"${flags}\"")
