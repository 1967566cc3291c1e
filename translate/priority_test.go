package translate

import (
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

func checkPriorities(t rapid.TB, list []ranked, got map[string]int) {
	t.Helper()
	if len(got) != len(list) {
		t.Fatalf("%d priorities for %d elements", len(got), len(list))
	}
	above := 1 << 60
	for _, r := range list {
		p := got[r.key]
		if p >= above || p-r.width < 0 {
			t.Fatalf("%s has %d, the last one used down to %d; %v %v", r.key, p, above, list, got)
		}
		above = p - r.width + 1
	}
}

// Any sequence of edits keeps the order, and keeps priorities where it can.
func TestPrioritiesFallAlongTheListThroughAnyEdits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []ranked
		var current map[string]int
		n := 0
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "edit") {
			case 0, 1:
				at := rapid.IntRange(0, len(list)).Draw(t, "at")
				list = slices.Insert(list, at, ranked{strconv.Itoa(n), rapid.IntRange(1, 25).Draw(t, "width")})
				n++
			case 2:
				if len(list) > 0 {
					at := rapid.IntRange(0, len(list)-1).Draw(t, "at")
					list = slices.Delete(list, at, at+1)
				}
			case 3:
				if len(list) > 0 {
					at := rapid.IntRange(0, len(list)-1).Draw(t, "at")
					r := list[at]
					r.width = rapid.IntRange(1, 25).Draw(t, "width")
					list = slices.Delete(list, at, at+1)
					list = slices.Insert(list, rapid.IntRange(0, len(list)).Draw(t, "to"), r)
				}
			}
			current = allocatePriorities(list, current)
			checkPriorities(t, list, current)
			again := allocatePriorities(list, current)
			for key, p := range current {
				if again[key] != p {
					t.Fatalf("allocating again moves %s from %d to %d", key, p, again[key])
				}
			}
		}
	})
}

func TestInsertingARouteMovesNoOther(t *testing.T) {
	var list []ranked
	for i := range 100 {
		list = append(list, ranked{strconv.Itoa(i), 1})
	}
	before := allocatePriorities(list, nil)
	for at := range len(list) + 1 {
		after := allocatePriorities(slices.Insert(slices.Clone(list), at, ranked{"new", 3}), before)
		for key, p := range before {
			if after[key] != p {
				t.Errorf("inserting at %d moves %s from %d to %d", at, key, p, after[key])
			}
		}
	}
}

func TestMovingARouteMovesNoOther(t *testing.T) {
	var list []ranked
	for i := range 20 {
		list = append(list, ranked{strconv.Itoa(i), 1})
	}
	before := allocatePriorities(list, nil)
	moved := slices.Insert(slices.Clone(list[1:]), 10, list[0])
	after := allocatePriorities(moved, before)
	for key, p := range before {
		if key != "0" && after[key] != p {
			t.Errorf("moving 0 moves %s from %d to %d", key, p, after[key])
		}
	}
}

func TestInsertingAtOnePlaceOverAndOverRunsOutOfRoomOnce(t *testing.T) {
	list := []ranked{{"first", 1}, {"last", 1}}
	current := allocatePriorities(list, nil)
	for i := range 2000 {
		list = slices.Insert(list, 1, ranked{strconv.Itoa(i), 1})
		current = allocatePriorities(list, current)
		checkPriorities(t, list, current)
	}
}
