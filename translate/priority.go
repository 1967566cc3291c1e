package translate

import "slices"

// priorityStep is the distance between new priorities, so that routes can come in between without
// another one changing.
const priorityStep = 1000

// terminalPriority is below all that are allocated.
const terminalPriority = -1

// ranked is something that needs priorities: width of them, downwards from the one it is given.
type ranked struct {
	key   string
	width int
}

// allocatePriorities gives every element of a list a priority, falling along the list, and keeps as
// many of the previous ones as possible. All are multiples of priorityStep at first; later ones lie
// between, until there is no room and the list is numbered anew.
func allocatePriorities(list []ranked, previous map[string]int) map[string]int {
	kept := keepable(list, previous)
	out := make(map[string]int, len(list))
	below := 0 // the priority under which the run that is being filled must not fall
	for end := len(list); end > 0; {
		start := end
		for start > 0 && !kept[start-1] {
			start--
		}
		run := list[start:end]
		if start == 0 { // nothing above: as much room as needed
			for i, r := range slices.Backward(run) {
				below += max(priorityStep, r.width)
				out[run[i].key] = below
			}
			break
		}
		above := previous[list[start-1].key]
		if !spread(run, below, above-list[start-1].width+1, out) {
			return allocatePriorities(list, nil)
		}
		out[list[start-1].key] = above
		below = above
		end = start - 1
	}
	return out
}

// spread gives a run evenly distributed priorities p with below < p-width+1 and p < above. ok is
// false without enough room.
func spread(run []ranked, below, above int, out map[string]int) (ok bool) {
	need := 0
	for _, r := range run {
		need += r.width
	}
	free := above - below - 1 - need
	if free < 0 {
		return false
	}
	gap := free / (len(run) + 1)
	for _, r := range slices.Backward(run) {
		below += gap + r.width
		out[r.key] = below
	}
	return true
}

// keepable marks the elements that keep their previous priority: a longest subsequence whose
// priorities fall along the list. The elements must also have room for their width below.
func keepable(list []ranked, previous map[string]int) []bool {
	kept := make([]bool, len(list))
	if len(previous) == 0 {
		return kept
	}
	// Patience sorting on the list from its end, where priorities must rise. tails[n] is the
	// element that ends the rising sequence of length n+1 with the least priority.
	var tails []int
	before := make([]int, len(list))
	for i, r := range slices.Backward(list) {
		p, ok := previous[r.key]
		// Never below what the width needs, so that nothing collides with the terminal route.
		if !ok || p < r.width {
			continue
		}
		n, _ := slices.BinarySearchFunc(tails, p-r.width+1, func(tail, low int) int {
			if previous[list[tail].key] < low {
				return -1
			}
			return 1
		})
		before[i] = -1
		if n > 0 {
			before[i] = tails[n-1]
		}
		switch {
		case n == len(tails):
			tails = append(tails, i)
		case p < previous[list[tails[n]].key]:
			tails[n] = i
		}
	}
	if len(tails) == 0 {
		return kept
	}
	for i := tails[len(tails)-1]; i >= 0; i = before[i] {
		kept[i] = true
	}
	return kept
}
