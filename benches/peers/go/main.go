// SPDX-License-Identifier: BSL-1.0

// The scenarios starvation, storm and latency on Go. What each does, and how it corresponds to the
// programs beside it: README.md in the folder above.
package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	probePeriod = time.Millisecond
	step        = 10 * time.Microsecond
	request     = 20 * time.Microsecond
	hogPause    = 5 * time.Millisecond   // starvation: between two bursts
	hogPeriod   = 100 * time.Millisecond // latency: from burst to burst
)

// outcome is what a run measured, as it is printed.
type outcome struct {
	Arm          string                     `json:"arm"`
	Label        string                     `json:"label"`
	Scenario     string                     `json:"scenario"`
	Variant      string                     `json:"variant"`
	Samples      map[string][]time.Duration `json:"samples_ns"`
	Values       map[string]float64         `json:"values"`
	Verified     bool                       `json:"verified"`
	Verification string                     `json:"verification"`
}

// Times are read from CLOCK_MONOTONIC, which is what time.Since, Until and Sub go by.
func spin(duration time.Duration) {
	for start := time.Now(); time.Since(start) < duration; {
	}
}

func milliseconds(duration time.Duration) float64 { return float64(duration) / 1e6 }

// probe reports how late each deadline was: one each millisecond from start, until the end, which is
// given in nanoseconds from start and may become known later.
func probe(start time.Time, end *atomic.Int64, armed func()) []time.Duration {
	lateness := make([]time.Duration, 0, 1<<16)
	armed()
	for due := start.Add(probePeriod); ; due = due.Add(probePeriod) {
		time.Sleep(time.Until(due)) // returns at once for a deadline that has passed
		late := time.Since(due)
		if due.Sub(start) > time.Duration(end.Load()) {
			return lateness
		}
		lateness = append(lateness, late)
	}
}

func checkProbe(lateness []time.Duration, ranFor time.Duration) error {
	if deadlines := int(ranFor / probePeriod); deadlines == 0 || len(lateness) != deadlines {
		return fmt.Errorf("the probe fired %d times for %d deadlines", len(lateness), deadlines)
	}
	return nil
}

type hogged struct {
	bursts, steps int
	busy          time.Duration
}

// hog works in bursts of 10 us steps until the run ends; a burst that was begun is finished. Nothing in
// it yields, unless --gosched is given: the runtime preempts goroutines by a signal after 10 ms.
func hog(o options, start time.Time) (done hogged) {
	for o.hogSteps() > 0 && time.Since(start) < o.duration {
		begun := time.Now()
		for i := 0; i < o.hogSteps(); i++ {
			spin(step)
			done.steps++
			if o.gosched {
				runtime.Gosched()
			}
		}
		done.busy += time.Since(begun)
		done.bursts++
		if o.scenario == "latency" {
			time.Sleep(time.Until(start.Add(hogPeriod * time.Duration(done.bursts))))
		} else {
			time.Sleep(hogPause)
		}
	}
	return done
}

func checkHog(done hogged, o options) error {
	expected := done.bursts * o.hogSteps()
	if done.steps != expected || done.busy < step*time.Duration(done.steps) ||
		(done.bursts > 0) != (o.hogSteps() > 0) {
		return fmt.Errorf("the hog did %d of %d steps in %v", done.steps, expected, done.busy)
	}
	return nil
}

func starvation(o options, result *outcome) error {
	var (
		tasks    sync.WaitGroup
		lateness []time.Duration
		done     hogged
		end      atomic.Int64
	)
	end.Store(int64(o.duration))
	start := time.Now()
	tasks.Add(2)
	go func() { defer tasks.Done(); lateness = probe(start, &end, func() {}) }()
	go func() { defer tasks.Done(); done = hog(o, start) }()
	tasks.Wait()
	elapsed := time.Since(start)
	if err := checkProbe(lateness, o.duration); err != nil {
		return err
	}
	if err := checkHog(done, o); err != nil {
		return err
	}
	result.Samples = map[string][]time.Duration{"probe_lateness": lateness}
	result.Values = map[string]float64{
		"hog_steps": float64(done.steps), "hog_bursts": float64(done.bursts),
		"probes": float64(len(lateness)), "elapsed_ms": milliseconds(elapsed),
	}
	result.Verification = fmt.Sprintf(
		"each of the hog's %d bursts did its %d steps; the probe fired once for each of %d deadlines",
		done.bursts, o.hogSteps(), len(lateness))
	return nil
}

func storm(o options, result *outcome) error {
	var (
		ran      = make([]atomic.Int32, o.tasks)
		tasks    sync.WaitGroup
		lateness = make(chan []time.Duration)
		armed    = make(chan struct{})
		end      atomic.Int64
	)
	end.Store(math.MaxInt64)
	start := time.Now()
	go func() { lateness <- probe(start, &end, func() { close(armed) }) }()
	<-armed // it sets its timer before the storm: the queue is first come, first served
	runtime.Gosched()
	tasks.Add(o.tasks)
	for i := 0; i < o.tasks; i++ {
		go func(task int) {
			defer tasks.Done()
			spin(step)
			ran[task].Add(1)
		}(i)
	}
	posted := time.Since(start)
	tasks.Wait()
	elapsed := time.Since(start)
	end.Store(int64(elapsed))
	late := <-lateness
	once := 0
	for i := range ran {
		if ran[i].Load() == 1 {
			once++
		}
	}
	if once != o.tasks {
		return fmt.Errorf("%d of %d tasks ran exactly once", once, o.tasks)
	}
	if err := checkProbe(late, elapsed); err != nil {
		return err
	}
	result.Samples = map[string][]time.Duration{"probe_lateness": late}
	result.Values = map[string]float64{
		"tasks": float64(once), "probes": float64(len(late)),
		"posted_ms": milliseconds(posted), "elapsed_ms": milliseconds(elapsed),
	}
	result.Verification = fmt.Sprintf(
		"each of %d tasks ran exactly once; the probe fired once for each of %d deadlines", once, len(late))
	return nil
}

func latency(o options, result *outcome) error {
	var (
		latencies = make([]time.Duration, o.arrivals())
		completed atomic.Int64
		tasks     sync.WaitGroup
		done      hogged
	)
	start := time.Now()
	tasks.Add(1 + len(latencies))
	go func() { defer tasks.Done(); done = hog(o, start) }()
	go func() {
		for i := range latencies {
			due := start.Add(o.arrivalPeriod() * time.Duration(i+1))
			time.Sleep(time.Until(due))
			go func(i int) {
				defer tasks.Done()
				spin(request)
				latencies[i] = time.Since(due)
				completed.Add(1)
			}(i)
		}
	}()
	tasks.Wait()
	elapsed := time.Since(start)
	for _, latency := range latencies {
		if latency < request || int(completed.Load()) != len(latencies) {
			return fmt.Errorf("%d of %d requests were completed", completed.Load(), len(latencies))
		}
	}
	if err := checkHog(done, o); err != nil {
		return err
	}
	result.Samples = map[string][]time.Duration{"latency": latencies}
	result.Values = map[string]float64{
		"arrivals": float64(len(latencies)), "completions": float64(completed.Load()),
		"hog_steps": float64(done.steps), "hog_bursts": float64(done.bursts),
		"elapsed_ms": milliseconds(elapsed),
	}
	result.Verification = fmt.Sprintf(
		"each of %d arrivals was completed once; each of the hog's %d bursts did its %d steps",
		len(latencies), done.bursts, o.hogSteps())
	return nil
}

func main() {
	fail := func(status int, err error) {
		fmt.Fprintln(os.Stderr, "peer_go:", err)
		os.Exit(status)
	}
	o, err := parseOptions(os.Args[1:])
	if err != nil {
		fail(2, err)
	}
	runtime.GOMAXPROCS(o.workers)
	result := outcome{
		Arm: "go", Label: "Go " + strings.TrimPrefix(runtime.Version(), "go"),
		Scenario: o.scenario, Variant: o.variant(), Verified: true,
	}
	scenarios := map[string]func(options, *outcome) error{
		"starvation": starvation, "storm": storm, "latency": latency,
	}
	if err := scenarios[o.scenario](o, &result); err != nil {
		fail(1, err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		fail(1, fmt.Errorf("could not write the result: %w", err))
	}
}
