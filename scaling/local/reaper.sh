# Kills process groups when its standard input ends, that is, when the process at the other end has ended, in whatever
# way. The input tells the groups: "+ PGID" adds one, "- PGID" takes one away.
groups=' '
while read -r op pgid; do
	case $op in
	+) groups="$groups$pgid " ;;
	-) groups="${groups%% "$pgid" *} ${groups#* "$pgid" }" ;;
	esac
done
for pgid in $groups; do
	kill -s KILL -- "-$pgid" 2>/dev/null
done
