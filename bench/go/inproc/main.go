// Works inside one process, as a user of Go writes them. What is asked for and what is printed is as in
// bench/src/inproc.rs.
//
// A goroutine that is woken runs next on its waker's P; so that round-trip goes from one thread to another, each of the
// two goroutines there has a thread of its own.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const longEnough = 250 * time.Millisecond

var input = bufio.NewReader(os.Stdin)

func main() {
	work := ""
	if len(os.Args) > 1 {
		work = os.Args[1]
	}
	runtime.GOMAXPROCS(1)
	switch work {
	case "spawn":
		timed(func(count int) {
			done := make(chan struct{})
			for i := 0; i < count; i++ {
				go func() { done <- struct{}{} }()
				<-done
			}
		})
	case "yield":
		timed(func(count int) {
			yields := func() {
				for i := 0; i < count/2; i++ {
					runtime.Gosched()
				}
			}
			var other sync.WaitGroup
			other.Add(1)
			go func() { defer other.Done(); yields() }()
			yields()
			other.Wait()
		})
	case "hop":
		timed(func(count int) {
			hop(count, func(numbers chan int) int { return <-numbers })
		})
	case "hop-timeout":
		timed(func(count int) {
			hop(count, func(numbers chan int) int {
				timer := time.NewTimer(time.Hour)
				defer timer.Stop()
				select {
				case number := <-numbers:
					return number
				case <-timer.C:
					panic("an hour has passed")
				}
			})
		})
	case "round-trip":
		runtime.GOMAXPROCS(2)
		runtime.LockOSThread()
		timed(roundTrip)
	case "parked":
		tasks := number(2)
		if len(os.Args) > 3 {
			runtime.GOMAXPROCS(number(3))
		}
		parked(tasks)
	default:
		fmt.Fprintln(os.Stderr, "usage: inproc spawn|yield|hop|hop-timeout|round-trip|parked TASKS [WORKERS]")
		os.Exit(2)
	}
}

func number(index int) int {
	number, err := strconv.Atoi(os.Args[index])
	if err != nil {
		panic(err)
	}
	return number
}

func timed(run func(count int)) {
	for count := 1000; ; count *= 2 {
		start, cpuStart := time.Now(), cpuTime()
		run(count)
		took, cpu := time.Since(start), cpuTime()-cpuStart
		if took >= longEnough {
			each := func(all time.Duration) float64 { return float64(all.Nanoseconds()) / float64(count) }
			fmt.Printf("{\"ns\":%f,\"cpu_ns\":%f,\"operations\":%d}\n", each(took), each(cpu), count)
			return
		}
	}
}

// cpuTime is what all threads of this process have used of CPUs.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func hop(count int, receive func(chan int) int) {
	numbers := make(chan int)
	go func() {
		for i := 0; i < count; i++ {
			numbers <- i
		}
	}()
	for i := 0; i < count; i++ {
		if receive(numbers) != i {
			panic("a number is lost")
		}
	}
}

func roundTrip(count int) {
	ask, answer := make(chan int), make(chan int)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for number := range ask {
			answer <- number
		}
	}()
	for i := 0; i < count; i++ {
		ask <- i
		if <-answer != i {
			panic("a number is lost")
		}
	}
	close(ask)
}

func parked(tasks int) {
	fmt.Println("ready")
	waitForLine()

	start := time.Now()
	goOn, all := make(chan struct{}), make(chan struct{})
	var count atomic.Int64
	var ended sync.WaitGroup
	ended.Add(tasks)
	for i := 0; i < tasks; i++ {
		go func() {
			defer ended.Done()
			if count.Add(1) == int64(tasks) {
				close(all)
			}
			<-goOn
		}()
	}
	<-all
	fmt.Printf("{\"spawn_seconds\":%f}\n", time.Since(start).Seconds())
	waitForLine()

	start = time.Now()
	close(goOn)
	ended.Wait()
	fmt.Printf("{\"join_seconds\":%f}\n", time.Since(start).Seconds())
}

func waitForLine() {
	_, _ = input.ReadString('\n') // the end of input is as good as a line
}
