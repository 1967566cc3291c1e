package console

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

func TestTheJournalIsBounded(t *testing.T) {
	j := NewJournal()
	big := bytes.Repeat([]byte("x"), journalBytes/10)
	for revision := range int64(3 * journalRevisions) {
		j.Add(revision, time.Time{}, []Change{{Key: "routes/a", After: []byte("1")}})
	}
	all := j.newestFirst()
	if len(all) != journalRevisions || all[0].revision != 3*journalRevisions-1 {
		t.Errorf("%d revisions, the newest is %d", len(all), all[0].revision)
	}
	for revision := range int64(30) {
		j.Add(1000+revision, time.Time{}, []Change{{Key: "routes/a", Before: big, After: big}})
	}
	if n := len(j.newestFirst()); n != 4 || j.bytes > journalBytes { // of 20 % each
		t.Errorf("%d revisions with %d bytes", n, j.bytes)
	}
}

func TestALargeCommitIsRememberedByItsKeys(t *testing.T) {
	j := NewJournal()
	var changes []Change
	for i := range 10 * journalObjects {
		changes = append(changes, Change{Key: fmt.Sprintf("routes/r.%d", i), After: []byte(`{"a":1}`)})
	}
	j.Add(1, time.Time{}, append(changes, Change{Key: "routes/", After: []byte("init_dir")}))
	c := j.newestFirst()[0]
	if c.count != 10*journalObjects || len(c.changes) != journalObjects || len(c.changes[0].After) != 0 || c.changes[0].After == nil {
		t.Errorf("%d changes, %d remembered, the first is %+v", c.count, len(c.changes), c.changes[0])
	}
	if string(changes[0].After) == "" {
		t.Error("the caller's changes are modified")
	}
	f := &filter{}
	if v := c.view(f, nil); v.Put != 10*journalObjects || len(v.Changes) != shownChanges || v.More != 10*journalObjects-shownChanges {
		t.Errorf("%d put, %d shown, %d more", v.Put, len(v.Changes), v.More)
	}
}

func TestWithoutAJournalNothingIsRemembered(t *testing.T) {
	var j *Journal
	j.Add(1, time.Time{}, nil)
	if j.newestFirst() != nil {
		t.Error("something is")
	}
}
