package capture

import (
	"container/heap"
	"time"
)

// notInHeap is the position of a flow without a deadline.
const notInHeap = -1

// deadlines has flows by the time at which they may have been idle for too long. A byte does not move a
// flow: it is looked at again when its deadline has come, which costs as much as an idle timeout is long.
type deadlines struct{ heap deadlineHeap }

type deadlineHeap []deadline

type deadline struct {
	at   time.Duration
	flow *flow
}

// first returns the earliest deadline.
func (d *deadlines) first() (time.Duration, bool) {
	if len(d.heap) == 0 {
		return 0, false
	}
	return d.heap[0].at, true
}

func (d *deadlines) push(f *flow, at time.Duration) { heap.Push(&d.heap, deadline{at, f}) }

// pop removes the flow with the earliest deadline.
func (d *deadlines) pop() *flow {
	first, _ := heap.Pop(&d.heap).(deadline)
	return first.flow
}

// remove removes a flow, if it has a deadline.
func (d *deadlines) remove(f *flow) {
	if f.heapPos != notInHeap {
		heap.Remove(&d.heap, f.heapPos)
	}
}

// Len, Less, Swap, Push and Pop are what container/heap asks for.
func (h *deadlineHeap) Len() int           { return len(*h) }
func (h *deadlineHeap) Less(i, j int) bool { return (*h)[i].at < (*h)[j].at }

func (h *deadlineHeap) Swap(i, j int) {
	s := *h
	s[i], s[j] = s[j], s[i]
	s[i].flow.heapPos, s[j].flow.heapPos = i, j
}

func (h *deadlineHeap) Push(x any) {
	d, _ := x.(deadline)
	d.flow.heapPos = len(*h)
	*h = append(*h, d)
}

func (h *deadlineHeap) Pop() any {
	last := len(*h) - 1
	d := (*h)[last]
	(*h)[last] = deadline{}
	*h = (*h)[:last]
	d.flow.heapPos = notInHeap
	return d
}
